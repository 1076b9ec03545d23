//! What devices are told of callers, so that they judge them as the hub does.

use std::sync::Arc;

use mobo_adapters::desk::Cell;
use mobo_core::rights::{Access, KnownKey, Policies, Role, Scope};
use mobo_core::time::Eff;
use mobo_gate::auth::token::VerifyKey;

use super::rows::{bytes, int, number, word};
use super::{Accounts, AuthError};

impl Accounts {
    pub(super) async fn told(&self, policies: &Arc<Policies>, keys: &[VerifyKey]) -> Result<String, AuthError> {
        const LOOK: &str =
            "SELECT hash, name, role, scopes, expires_us FROM mobo_api_key WHERE project = $1 AND revoked_us IS NULL ORDER BY id";
        let key = |row: &Vec<Cell>| {
            let scopes: Vec<String> = serde_json::from_str(&word(row, 3)?).ok()?;
            Some(KnownKey {
                hash: bytes(row, 0)?.try_into().ok()?,
                name: word(row, 1)?,
                role: Role::from_name(&word(row, 2)?).ok()?,
                // A scope that cannot be read is one that nothing is in.
                scopes: scopes.iter().map(|scope| Scope::parse(scope)).collect::<Option<Vec<_>>>()?.concat(),
                expires: number(row, 4).map(Eff),
            })
        };
        let rows = self.read(LOOK, [int(self.served)]).await?;
        let access = Access {
            issuer: self.issuer.clone(),
            jwks: keys.iter().map(VerifyKey::to_jwk).collect(),
            keys: rows.iter().filter_map(key).collect(),
            policies: Arc::clone(policies),
        };
        Ok(access.to_text())
    }
}
