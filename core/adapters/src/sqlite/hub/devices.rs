//! Devices, their invitations and rights.

use mobo_core::ids::{BucketId, DeviceId, Position, ProjectId, PublicKey};
use mobo_core::store::{DeviceRow, Invite, InviteState};
use mobo_core::time::Eff;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::sqlite::error::{Failure, known};

/// Keeps an invitation.
pub(super) fn invite(connection: &Connection, project: ProjectId, invite: &Invite) -> Result<(), Failure> {
    let buckets = to_json(invite.buckets.clone());
    let sql = "INSERT INTO mobo_invite(secret_hash, project, name, buckets, expires_us, claims) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let claims = to_json(pairs(&invite.claims));
    connection.execute(sql, (invite.secret_hash, project.sql(), &invite.name, buckets, invite.expires.0, claims))?;
    Ok(())
}

/// What an invitation is worth at `now`.
pub(super) fn invite_state(connection: &Connection, project: ProjectId, secret_hash: &[u8; 32], now: Eff) -> Result<InviteState, Failure> {
    let sql = "SELECT name, buckets, expires_us, used_by, claims FROM mobo_invite WHERE secret_hash = ?1 AND project = ?2";
    let found = connection.query_row(sql, (secret_hash, project.sql()), |row| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, Option<[u8; 16]>>(3)?, row.get::<_, String>(4)?))
    });
    let Some((name, buckets, expires, used_by, claims)) = found.optional()? else { return Ok(InviteState::Unknown) };
    if let Some(device) = used_by {
        return Ok(InviteState::Used(DeviceId(device)));
    }
    if now >= Eff(expires) {
        return Ok(InviteState::Expired);
    }
    let buckets = known(serde_json::from_str(&buckets).ok(), "list of buckets")?;
    let claims = known(serde_json::from_str(&claims).ok(), "list of claims")?;
    Ok(InviteState::Open(Invite { secret_hash: *secret_hash, name, buckets, claims, expires: Eff(expires) }))
}

/// Uses an open invitation. Gives the state in which it was found: only for an open one anything has changed.
pub(super) fn enrol(
    connection: &Connection,
    project: ProjectId,
    secret_hash: &[u8; 32],
    device: &DeviceRow,
) -> Result<InviteState, Failure> {
    let state = invite_state(connection, project, secret_hash, device.enrolled)?;
    if !matches!(state, InviteState::Open(_)) {
        return Ok(state);
    }
    // A device that comes again with another invitation keeps its logs and gets new rights; whoever gave the invitation has taken it back in.
    let sql = "INSERT INTO mobo_device(project, id, key, name, certificate, enrolled_us, claims) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
               ON CONFLICT (project, id) DO UPDATE SET name = excluded.name, certificate = excluded.certificate, \
               enrolled_us = excluded.enrolled_us, revoked_us = NULL, claims = excluded.claims";
    let id = device.id.as_bytes();
    let (key, claims) = (device.key.as_bytes(), to_json(pairs(&device.claims)));
    connection.execute(sql, (project.sql(), id, key, &device.name, &device.certificate, device.enrolled.0, claims))?;
    connection.execute("DELETE FROM mobo_grant WHERE project = ?1 AND device = ?2", (project.sql(), id))?;
    for (bucket, write) in &device.grants {
        let sql = "INSERT INTO mobo_grant(project, device, bucket, write) VALUES (?1, ?2, ?3, ?4)";
        connection.execute(sql, (project.sql(), id, bucket, write))?;
    }
    let sql = "UPDATE mobo_invite SET used_by = ?1, used_us = ?2 WHERE secret_hash = ?3";
    connection.execute(sql, (id, device.enrolled.0, secret_hash))?;
    Ok(state)
}

/// Takes a device back on its certificate. One that is known stays as it is.
pub(super) fn readmit(connection: &Connection, project: ProjectId, device: &DeviceRow) -> Result<(), Failure> {
    let sql = "INSERT INTO mobo_device(project, id, key, name, certificate, enrolled_us, claims) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
               ON CONFLICT DO NOTHING";
    let (id, claims) = (device.id.as_bytes(), to_json(pairs(&device.claims)));
    let row = (project.sql(), id, device.key.as_bytes(), &device.name, &device.certificate, device.enrolled.0, claims);
    if connection.execute(sql, row)? == 0 {
        return Ok(());
    }
    for (bucket, write) in &device.grants {
        let sql = "INSERT INTO mobo_grant(project, device, bucket, write) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        connection.execute(sql, (project.sql(), id, bucket, write))?;
    }
    Ok(())
}

const COLUMNS: &str = "id, key, name, certificate, enrolled_us, revoked_us, seen_us, claims";

/// A device.
pub(super) fn device(connection: &Connection, project: ProjectId, id: DeviceId) -> Result<Option<DeviceRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_device WHERE project = ?1 AND id = ?2"))?;
    let mut rows = statement.query((project.sql(), id.as_bytes()))?;
    rows.next()?.map(|row| read(connection, project, row)).transpose()
}

/// All devices, by name.
pub(super) fn devices(connection: &Connection, project: ProjectId) -> Result<Vec<DeviceRow>, Failure> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM mobo_device WHERE project = ?1 ORDER BY name, id"))?;
    let mut rows = statement.query([project.sql()])?;
    let mut devices = Vec::new();
    while let Some(row) = rows.next()? {
        devices.push(read(connection, project, row)?);
    }
    Ok(devices)
}

/// Revokes a device. One that was revoked before stays revoked since then.
pub(super) fn revoke(connection: &Connection, project: ProjectId, id: DeviceId, now: Eff) -> Result<bool, Failure> {
    let sql = "UPDATE mobo_device SET revoked_us = coalesce(revoked_us, ?1) WHERE project = ?2 AND id = ?3";
    Ok(connection.execute(sql, (now.0, project.sql(), id.as_bytes()))? > 0)
}

/// Gives a device a bucket, or another right on one that it has; false when there is no such device.
pub(super) fn grant(connection: &Connection, project: ProjectId, id: DeviceId, (bucket, write): (&str, bool)) -> Result<bool, Failure> {
    let sql = "INSERT INTO mobo_grant(project, device, bucket, write) SELECT project, id, ?3, ?4 FROM mobo_device \
               WHERE project = ?1 AND id = ?2 \
               ON CONFLICT (project, device, bucket) DO UPDATE SET write = excluded.write, ended_us = NULL";
    Ok(connection.execute(sql, (project.sql(), id.as_bytes(), bucket, write))? > 0)
}

/// Takes a bucket away from a device; false when there is no such device.
pub(super) fn ungrant(
    connection: &Connection,
    project: ProjectId,
    id: DeviceId,
    (bucket, accept_until): (&str, Eff),
) -> Result<bool, Failure> {
    // Where it might only read, nothing that it has made is taken, whenever that was.
    let sql = "INSERT INTO mobo_grant(project, device, bucket, ended_us) SELECT project, id, ?3, ?4 FROM mobo_device \
               WHERE project = ?1 AND id = ?2 \
               ON CONFLICT (project, device, bucket) DO UPDATE SET \
               ended_us = iif(write, min(coalesce(ended_us, excluded.ended_us), excluded.ended_us), ?5)";
    Ok(connection.execute(sql, (project.sql(), id.as_bytes(), bucket, accept_until.0, i64::MIN))? > 0)
}

/// Notes how far a device has read.
pub(super) fn cursors(
    connection: &Connection,
    project: ProjectId,
    device: DeviceId,
    (at, now): (Vec<(BucketId, Position)>, Eff),
) -> Result<(), Failure> {
    let sql = "INSERT INTO mobo_cursor(project, device, bucket, position, at_us) VALUES (?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT (project, device, bucket) DO UPDATE SET position = max(position, excluded.position), at_us = excluded.at_us";
    let mut statement = connection.prepare_cached(sql)?;
    for (bucket, position) in at {
        statement.execute((project.sql(), device.as_bytes(), bucket.sql(), position.0.cast_signed(), now.0))?;
    }
    Ok(())
}

fn to_json(value: impl Into<serde_json::Value>) -> String {
    value.into().to_string()
}

/// `[[name, value], …]`
fn pairs(claims: &[(String, String)]) -> Vec<Vec<String>> {
    claims.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect()
}

fn read(connection: &Connection, project: ProjectId, row: &Row<'_>) -> Result<DeviceRow, Failure> {
    let id = DeviceId(row.get(0)?);
    let sql = "SELECT bucket, write, ended_us FROM mobo_grant WHERE project = ?1 AND device = ?2 ORDER BY bucket";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((project.sql(), id.as_bytes()))?;
    let (mut grants, mut ended) = (Vec::new(), Vec::new());
    while let Some(grant) = rows.next()? {
        match grant.get::<_, Option<i64>>(2)? {
            None => grants.push((grant.get(0)?, grant.get(1)?)),
            Some(end) => ended.push((grant.get(0)?, Eff(end))),
        }
    }
    Ok(DeviceRow {
        id,
        key: PublicKey(row.get(1)?),
        name: row.get(2)?,
        certificate: row.get(3)?,
        enrolled: Eff(row.get(4)?),
        revoked: row.get::<_, Option<i64>>(5)?.map(Eff),
        seen: row.get::<_, Option<i64>>(6)?.map(Eff),
        grants,
        claims: known(serde_json::from_str(&row.get::<_, String>(7)?).ok(), "list of claims")?,
        ended,
    })
}
