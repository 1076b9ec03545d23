//! Who may come in, and what is known of a device's logs.

use std::collections::BTreeMap;

use mobo_core::entry::chain_start;
use mobo_core::ids::{BootId, BucketId, Chain, DeviceId, Incarnation, Lane, LaneKey, Ordinal, Position, ProjectId, PublicKey, Seq};
use mobo_core::limits;
use mobo_core::message::LaneStatus;
use mobo_core::session::hub::LANE_CREDIT_BYTES;
use mobo_core::store::{Admission, Arrival, DeviceRow, Invite, InviteState, TOO_MANY_LOGS};
use mobo_core::time::Eff;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::error::{Failure, known};
use super::session::Tx;

/// Keeps an invitation.
pub(super) async fn invite(tx: &mut Tx, project: ProjectId, invite: &Invite) -> Result<(), Failure> {
    let buckets = serde_json::Value::from(invite.buckets.clone()).to_string();
    let insert = sqlx::query(
        "INSERT INTO mobo.invite(secret_hash, project, name, buckets, expires_us, claims) VALUES ($1, $2, $3, $4::text::jsonb, $5, $6::text::jsonb)",
    );
    let insert = insert.bind(invite.secret_hash).bind(project.sql()).bind(&invite.name).bind(buckets).bind(invite.expires.0);
    tx.run(insert.bind(claims_to_json(&invite.claims))).await.map(|_| ())
}

/// What became of an invitation; locked until the transaction ends, so that it is used once.
pub(super) async fn invite_state(tx: &mut Tx, project: ProjectId, hash: [u8; 32], now: Eff, lock: bool) -> Result<InviteState, Failure> {
    const LOOK: &str =
        "SELECT name, buckets::text, expires_us, used_by, claims::text FROM mobo.invite WHERE secret_hash = $1 AND project = $2";
    const LOCK: &str =
        "SELECT name, buckets::text, expires_us, used_by, claims::text FROM mobo.invite WHERE secret_hash = $1 AND project = $2 FOR UPDATE";
    let look = sqlx::query(if lock { LOCK } else { LOOK }).bind(hash).bind(project.sql());
    let Some(row) = tx.row(look).await? else { return Ok(InviteState::Unknown) };
    if let Some(user) = row.try_get::<Option<[u8; 16]>, _>(3)? {
        return Ok(InviteState::Used(DeviceId(user)));
    }
    let expires = Eff(row.try_get(2)?);
    if expires <= now {
        return Ok(InviteState::Expired);
    }
    let buckets: String = row.try_get(1)?;
    let buckets = serde_json::from_str(&buckets).map_err(|error| Failure::damaged(format!("buckets of an invitation: {error}")))?;
    let claims = claims(row.try_get(4)?)?;
    Ok(InviteState::Open(Invite { secret_hash: hash, name: row.try_get(0)?, buckets, claims, expires }))
}

/// Uses an invitation for a device. What is given back is how it was found.
pub(super) async fn enrol(tx: &mut Tx, project: ProjectId, hash: [u8; 32], device: &DeviceRow) -> Result<InviteState, Failure> {
    let state = invite_state(tx, project, hash, device.enrolled, true).await?;
    let InviteState::Open(_) = &state else { return Ok(state) };
    let used = sqlx::query("UPDATE mobo.invite SET used_by = $2, used_us = $3 WHERE secret_hash = $1");
    tx.run(used.bind(hash).bind(device.id.0).bind(device.enrolled.0)).await?;
    // A device that comes again with another invitation keeps its logs and gets new rights; whoever gave the invitation has taken it back in.
    let insert = sqlx::query(
        "INSERT INTO mobo.device(project, id, key, name, certificate, enrolled_us, claims) \
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb) \
         ON CONFLICT (project, id) DO UPDATE SET name = excluded.name, certificate = excluded.certificate, \
         enrolled_us = excluded.enrolled_us, revoked_us = NULL, claims = excluded.claims",
    )
    .bind(project.sql())
    .bind(device.id.0)
    .bind(device.key.0)
    .bind(&device.name)
    .bind(&device.certificate)
    .bind(device.enrolled.0)
    .bind(claims_to_json(&device.claims));
    tx.run(insert).await?;
    let forget = sqlx::query("DELETE FROM mobo.grant WHERE project = $1 AND device = $2").bind(project.sql()).bind(device.id.0);
    tx.run(forget).await?;
    let (buckets, writes): (Vec<&str>, Vec<bool>) = device.grants.iter().map(|(key, write)| (key.as_str(), *write)).unzip();
    let grants = sqlx::query(
        "INSERT INTO mobo.grant(project, device, bucket, write) SELECT $1, $2, u.bucket, u.write FROM unnest($3::text[], $4::bool[]) \
         AS u(bucket, write) ON CONFLICT DO NOTHING",
    );
    tx.run(grants.bind(project.sql()).bind(device.id.0).bind(buckets).bind(writes)).await?;
    Ok(state)
}

/// Takes a device back on its certificate. One that is known stays as it is.
pub(super) async fn readmit(tx: &mut Tx, project: ProjectId, device: &DeviceRow) -> Result<(), Failure> {
    let insert = sqlx::query(
        "INSERT INTO mobo.device(project, id, key, name, certificate, enrolled_us, claims) \
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::jsonb) ON CONFLICT DO NOTHING",
    )
    .bind(project.sql())
    .bind(device.id.0)
    .bind(device.key.0)
    .bind(&device.name)
    .bind(&device.certificate)
    .bind(device.enrolled.0)
    .bind(claims_to_json(&device.claims));
    if tx.run(insert).await? == 0 {
        return Ok(());
    }
    let (buckets, writes): (Vec<&str>, Vec<bool>) = device.grants.iter().map(|(key, write)| (key.as_str(), *write)).unzip();
    let grants = sqlx::query(
        "INSERT INTO mobo.grant(project, device, bucket, write) SELECT $1, $2, u.bucket, u.write FROM unnest($3::text[], $4::bool[]) \
         AS u(bucket, write) ON CONFLICT DO NOTHING",
    );
    tx.run(grants.bind(project.sql()).bind(device.id.0).bind(buckets).bind(writes)).await?;
    Ok(())
}

/// One device, or all of them, by name.
pub(super) async fn devices(tx: &mut Tx, project: ProjectId, only: Option<DeviceId>) -> Result<Vec<DeviceRow>, Failure> {
    let only = only.map(|id| id.0);
    let look = sqlx::query(
        "SELECT id, key, name, certificate, enrolled_us, revoked_us, seen_us, claims::text FROM mobo.device \
         WHERE project = $1 AND ($2::bytea IS NULL OR id = $2) ORDER BY name, id",
    );
    let rows = tx.rows(look.bind(project.sql()).bind(only)).await?;
    let look = sqlx::query(
        "SELECT device, bucket, write, ended_us FROM mobo.grant WHERE project = $1 AND ($2::bytea IS NULL OR device = $2) \
         ORDER BY device, bucket",
    );
    let mut grants: BTreeMap<DeviceId, Granted> = BTreeMap::new();
    for row in tx.rows(look.bind(project.sql()).bind(only)).await? {
        let granted = grants.entry(DeviceId(row.try_get(0)?)).or_default();
        match row.try_get::<Option<i64>, _>(3)? {
            None => granted.live.push((row.try_get(1)?, row.try_get(2)?)),
            Some(end) => granted.ended.push((row.try_get(1)?, Eff(end))),
        }
    }
    rows.iter().map(|row| device(row, &mut grants)).collect()
}

/// Buckets that a device has, and such as it had.
#[derive(Default)]
struct Granted {
    live: Vec<(String, bool)>,
    ended: Vec<(String, Eff)>,
}

fn claims(text: String) -> Result<Vec<(String, String)>, Failure> {
    serde_json::from_str(&text).map_err(|error| Failure::damaged(format!("claims: {error}")))
}

/// `[[name, value], …]`
fn claims_to_json(claims: &[(String, String)]) -> String {
    let pairs: Vec<Vec<String>> = claims.iter().map(|(name, value)| vec![name.clone(), value.clone()]).collect();
    serde_json::Value::from(pairs).to_string()
}

fn device(row: &PgRow, grants: &mut BTreeMap<DeviceId, Granted>) -> Result<DeviceRow, Failure> {
    let id = DeviceId(row.try_get(0)?);
    let granted = grants.remove(&id).unwrap_or_default();
    Ok(DeviceRow {
        id,
        key: PublicKey(row.try_get(1)?),
        name: row.try_get(2)?,
        certificate: row.try_get(3)?,
        enrolled: Eff(row.try_get(4)?),
        revoked: row.try_get::<Option<i64>, _>(5)?.map(Eff),
        seen: row.try_get::<Option<i64>, _>(6)?.map(Eff),
        grants: granted.live,
        claims: claims(row.try_get(7)?)?,
        ended: granted.ended,
    })
}

/// Revokes a device; false when there is none. A device that was revoked before stays so since then.
pub(super) async fn revoke(tx: &mut Tx, project: ProjectId, id: DeviceId, now: Eff) -> Result<bool, Failure> {
    let revoke = sqlx::query("UPDATE mobo.device SET revoked_us = coalesce(revoked_us, $3) WHERE project = $1 AND id = $2");
    Ok(tx.run(revoke.bind(project.sql()).bind(id.0).bind(now.0)).await? == 1)
}

/// Gives a device a bucket, or another right on one that it has; false when there is no such device.
pub(super) async fn grant(tx: &mut Tx, project: ProjectId, id: DeviceId, (bucket, write): (&str, bool)) -> Result<bool, Failure> {
    let grant = sqlx::query(
        "INSERT INTO mobo.grant(project, device, bucket, write) SELECT project, id, $3, $4 FROM mobo.device WHERE project = $1 AND id = $2 \
         ON CONFLICT (project, device, bucket) DO UPDATE SET write = excluded.write, ended_us = NULL",
    );
    Ok(tx.run(grant.bind(project.sql()).bind(id.0).bind(bucket).bind(write)).await? > 0)
}

/// Takes a bucket away from a device; false when there is no such device.
pub(super) async fn ungrant(tx: &mut Tx, project: ProjectId, id: DeviceId, (bucket, accept_until): (&str, Eff)) -> Result<bool, Failure> {
    // Where it might only read, nothing that it has made is taken, whenever that was.
    let ungrant = sqlx::query(
        "INSERT INTO mobo.grant AS g(project, device, bucket, ended_us) SELECT project, id, $3, $4 FROM mobo.device \
         WHERE project = $1 AND id = $2 ON CONFLICT (project, device, bucket) DO UPDATE \
         SET ended_us = CASE WHEN g.write THEN least(coalesce(g.ended_us, excluded.ended_us), excluded.ended_us) ELSE $5 END",
    );
    Ok(tx.run(ungrant.bind(project.sql()).bind(id.0).bind(bucket).bind(accept_until.0).bind(i64::MIN)).await? > 0)
}

/// Takes note of a hello and says what is known of the device's logs.
pub(super) async fn arrive(tx: &mut Tx, project: ProjectId, arrival: &Arrival) -> Result<Admission, Failure> {
    // One hello of a device at a time: ordinals and generations are given once. The hub itself has no device row to lock.
    let half = arrival.device.0.first_chunk().copied().unwrap_or_default();
    tx.row(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(i64::from_be_bytes(half))).await?;
    let (ordinal, fenced) = incarnation(tx, project, arrival).await?;
    if let Some((boot, offset)) = arrival.boot {
        let learn = sqlx::query(
            "INSERT INTO mobo.boot(project, device, boot, offset_us) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (project, device, boot) DO UPDATE SET offset_us = least(mobo.boot.offset_us, excluded.offset_us)",
        );
        tx.run(learn.bind(project.sql()).bind(arrival.device.0).bind(boot.0).bind(offset)).await?;
        bound(tx, project, arrival, boot).await?;
    }
    let (session, confirmed) = session(tx, project, arrival).await?;
    let lanes = lanes(tx, project, arrival).await?;
    Ok(Admission { ordinal, fenced, session, confirmed, lanes })
}

/// Keeps what is read at each merge of a device within bounds. Of its boots, those that began last stay, and this one. Of its logs without an
/// entry that no other goes on from, the newest stay; what is forgotten is noted anew when it comes again. Of the others there may be so many.
async fn bound(tx: &mut Tx, project: ProjectId, arrival: &Arrival, boot: BootId) -> Result<(), Failure> {
    const BOOTS: &str = "DELETE FROM mobo.boot WHERE project = $1 AND device = $2 AND boot <> $3 AND boot NOT IN \
                         (SELECT boot FROM mobo.boot WHERE project = $1 AND device = $2 ORDER BY offset_us DESC, boot LIMIT $4)";
    const EMPTY: &str = "DELETE FROM mobo.incarnation i WHERE project = $1 AND device = $2 AND incarnation <> $3 AND NOT fenced \
                         AND ordinal <= (SELECT max(ordinal) FROM mobo.incarnation WHERE project = $1 AND device = $2) - $4 \
                         AND NOT EXISTS (SELECT FROM mobo.lane l WHERE l.project = $1 AND l.device = $2 AND l.incarnation = i.incarnation) \
                         AND NOT EXISTS (SELECT FROM mobo.incarnation c WHERE c.project = $1 AND c.device = $2 AND c.parent = i.incarnation)";
    let of = |sql: &'static str| sqlx::query(sql).bind(project.sql()).bind(arrival.device.0);
    tx.run(of(BOOTS).bind(boot.0).bind(i64::from(limits::DEVICE_BOOTS_MAX))).await?;
    tx.run(of(EMPTY).bind(arrival.incarnation.sql()).bind(limits::DEVICE_EMPTY_LOGS_MAX.cast_signed())).await?;
    let logs = tx.row(of("SELECT count(*) FROM mobo.incarnation WHERE project = $1 AND device = $2")).await?;
    if known(logs, "answer")?.try_get::<i64, _>(0)? > i64::from(limits::DEVICE_LOGS_MAX) {
        return Err(Failure::refused(TOO_MANY_LOGS));
    }
    Ok(())
}

async fn incarnation(tx: &mut Tx, project: ProjectId, arrival: &Arrival) -> Result<(Ordinal, bool), Failure> {
    // The number that it had before a restore, if nobody has it now; else the next.
    let wanted = arrival.ordinal.and_then(|ordinal| i32::try_from(ordinal.0).ok()).filter(|ordinal| *ordinal > 0);
    let parent = arrival.parent.map(|parent| parent.incarnation.sql());
    let parent_seq = arrival.parent.and_then(|parent| parent.seq).map(|seq| seq.get().cast_signed());
    let note = sqlx::query(
        "INSERT INTO mobo.incarnation(project, device, incarnation, ordinal, parent, parent_seq) SELECT $1, $2, $3, \
         CASE WHEN $4::int4 IS NULL OR EXISTS (SELECT 1 FROM mobo.incarnation WHERE project = $1 AND device = $2 AND ordinal = $4) \
         THEN 1 + coalesce((SELECT max(ordinal) FROM mobo.incarnation WHERE project = $1 AND device = $2), 0) ELSE $4 END, $5, $6 \
         ON CONFLICT (project, device, incarnation) DO UPDATE SET parent = coalesce(mobo.incarnation.parent, excluded.parent), \
         parent_seq = coalesce(mobo.incarnation.parent_seq, excluded.parent_seq) RETURNING ordinal, fenced",
    )
    .bind(project.sql())
    .bind(arrival.device.0)
    .bind(arrival.incarnation.sql())
    .bind(wanted)
    .bind(parent)
    .bind(parent_seq);
    let row = known(tx.row(note).await?, "log")?;
    Ok((Ordinal(known(u32::try_from(row.try_get::<i32, _>(0)?).ok(), "ordinal")?), row.try_get(1)?))
}

/// Generation of the new session of a log, and the highest one that its device has ever shown.
async fn session(tx: &mut Tx, project: ProjectId, arrival: &Arrival) -> Result<(u64, u64), Failure> {
    let shown = i64::try_from(arrival.session).unwrap_or(i64::MAX - 1).min(i64::MAX - 1);
    let seen = sqlx::query("UPDATE mobo.device SET seen_us = $3 WHERE project = $1 AND id = $2");
    tx.run(seen.bind(project.sql()).bind(arrival.device.0).bind(arrival.now.0)).await?;
    let next = sqlx::query(
        "UPDATE mobo.incarnation SET session = greatest(session, $4) + 1, confirmed = greatest(confirmed, $4) \
         WHERE project = $1 AND device = $2 AND incarnation = $3 RETURNING session, confirmed",
    );
    let row = tx.row(next.bind(project.sql()).bind(arrival.device.0).bind(arrival.incarnation.sql()).bind(shown)).await?;
    let Some(row) = row else { return Ok((0, 0)) };
    Ok((row.try_get::<i64, _>(0)?.cast_unsigned(), row.try_get::<i64, _>(1)?.cast_unsigned()))
}

async fn lanes(tx: &mut Tx, project: ProjectId, arrival: &Arrival) -> Result<Vec<LaneStatus>, Failure> {
    let look = sqlx::query(
        "SELECT lane, last, chain, safe, eff FROM mobo.lane WHERE project = $1 AND device = $2 AND incarnation = $3 AND last > 0",
    );
    let nothing = |lane| {
        let key = LaneKey { device: arrival.device, incarnation: arrival.incarnation, lane };
        LaneStatus { lane, last: None, chain: chain_start(project, &key), safe: None, credit_bytes: LANE_CREDIT_BYTES, eff: None }
    };
    let mut lanes = Lane::ALL.map(nothing).to_vec();
    for row in tx.rows(look.bind(project.sql()).bind(arrival.device.0).bind(arrival.incarnation.sql())).await? {
        let lane = lane(row.try_get(0)?)?;
        if let Some(status) = lanes.iter_mut().find(|status| status.lane == lane) {
            (status.last, status.chain, status.safe) = (seq(row.try_get(1)?), Chain(row.try_get(2)?), seq(row.try_get(3)?));
            status.eff = Some(Eff(row.try_get(4)?));
        }
    }
    Ok(lanes)
}

/// Closes a log after a refence.
pub(super) async fn fence(tx: &mut Tx, project: ProjectId, device: DeviceId, incarnation: Incarnation) -> Result<(), Failure> {
    let fence = sqlx::query("UPDATE mobo.incarnation SET fenced = true WHERE project = $1 AND device = $2 AND incarnation = $3");
    tx.run(fence.bind(project.sql()).bind(device.0).bind(incarnation.sql())).await.map(|_| ())
}

/// The chain after one entry of a lane.
pub(super) async fn chain_at(tx: &mut Tx, project: ProjectId, key: LaneKey, seq: Seq) -> Result<Option<Chain>, Failure> {
    let look =
        sqlx::query("SELECT chain FROM mobo.entry WHERE project = $1 AND device = $2 AND incarnation = $3 AND lane = $4 AND seq = $5")
            .bind(project.sql())
            .bind(key.device.0)
            .bind(key.incarnation.sql())
            .bind(i16::from(key.lane.number()))
            .bind(seq.get().cast_signed());
    Ok(match tx.row(look).await? {
        Some(row) => Some(Chain(row.try_get(0)?)),
        None => None,
    })
}

/// Notes how far a device has read; positions never go back.
pub(super) async fn cursors(
    tx: &mut Tx,
    project: ProjectId,
    device: DeviceId,
    at: &BTreeMap<BucketId, Position>,
    now: Eff,
) -> Result<(), Failure> {
    let (buckets, positions): (Vec<i64>, Vec<i64>) = at.iter().map(|(bucket, at)| (bucket.sql(), at.0.cast_signed())).unzip();
    let note = sqlx::query(
        "INSERT INTO mobo.cursor(project, device, bucket, position, at_us) SELECT $1, $2, u.bucket, u.position, $5 \
         FROM unnest($3::int8[], $4::int8[]) AS u(bucket, position) ON CONFLICT (project, device, bucket) DO UPDATE \
         SET position = greatest(mobo.cursor.position, excluded.position), at_us = excluded.at_us",
    );
    tx.run(note.bind(project.sql()).bind(device.0).bind(buckets).bind(positions).bind(now.0)).await.map(|_| ())
}

/// A lane by its number.
pub(super) fn lane(number: i16) -> Result<Lane, Failure> {
    known(u8::try_from(number).ok().and_then(Lane::from_number), "lane")
}

/// A position in a lane; 0 is none.
pub(super) fn seq(number: i64) -> Option<Seq> {
    Seq::new(number.cast_unsigned())
}
