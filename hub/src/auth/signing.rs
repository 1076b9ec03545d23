//! The keys that users' tokens are signed with: ES256, kept sealed in the store under a key that is made of the hub's.
//!
//! One is `current`; the next is `standby` and already in the JWKS, so that whoever keeps a copy of it knows it in time; the one before is
//! `previous`, until the tokens that it signed are over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use mobo_adapters::desk::{Cell, Statement};
use mobo_core::ids::ProjectId;
use mobo_core::trust::{KeyPair, derive};
use mobo_gate::auth::token::{self, Claims, PublicKey, VerifyKey};
use mobo_runtime::entropy;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::book::Event;
use super::rows::{bytes, int, text, time, word};
use super::{Accounts, AuthError};

/// What opens the sealed keys, and those that are open.
pub(super) struct Signers {
    seal: [u8; 32],
    refresh: hmac::Key,
    open: Mutex<BTreeMap<ProjectId, (VerifyKey, Arc<EcdsaKeyPair>)>>,
    random: SystemRandom,
}

impl fmt::Debug for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signers")
    }
}

fn broken(what: &str) -> AuthError {
    AuthError::Broken(format!("the key that tokens are signed with {what}: `mobo-hub auth rotate` makes another"))
}

impl Signers {
    pub(super) fn new(hub: &KeyPair) -> Self {
        let refresh = hmac::Key::new(hmac::HMAC_SHA256, &derive("mobo 1 refresh tokens", &hub.secret()));
        Self { seal: derive("mobo 1 token signing keys", &hub.secret()), refresh, open: Mutex::default(), random: SystemRandom::new() }
    }

    /// What a refresh token is exchanged for: the same however often it is asked, and known to nobody without the hub's key, so that it can be
    /// given again though only its hash is stored.
    pub(super) fn next_refresh(&self, old: &str) -> String {
        BASE64.encode(hmac::sign(&self.refresh, old.as_bytes()))
    }

    fn cipher(&self) -> Result<LessSafeKey, AuthError> {
        UnboundKey::new(&AES_256_GCM, &self.seal).map(LessSafeKey::new).map_err(|_| broken("cannot be opened"))
    }

    /// Nonce and ciphertext, bound to the key's name.
    fn seal(&self, kid: &str, mut plain: Vec<u8>) -> Result<Vec<u8>, AuthError> {
        let nonce = entropy::bytes::<12>()?;
        let seal = self.cipher()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(kid.as_bytes()), &mut plain);
        seal.map_err(|_| broken("cannot be sealed"))?;
        Ok([nonce.as_slice(), &plain].concat())
    }

    fn unseal(&self, kid: &str, sealed: &[u8]) -> Result<EcdsaKeyPair, AuthError> {
        let (nonce, cipher) = sealed.split_first_chunk::<12>().ok_or_else(|| broken("is damaged"))?;
        let mut cipher = cipher.to_vec();
        let opened = self.cipher()?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(kid.as_bytes()), &mut cipher);
        let plain = opened.map_err(|_| broken("was sealed by another hub.key"))?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, plain, &self.random).map_err(|_| broken("is damaged"))
    }

    pub(super) fn forget(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Accounts {
    /// Makes the first key of a project, where it has none.
    pub(super) async fn ensure_signing_key(&self, project: ProjectId) -> Result<(), AuthError> {
        let found = self.read("SELECT kid FROM mobo_signing_key WHERE project = $1 AND state = 'current'", [int(project)]).await?;
        if found.is_empty() {
            let statement = self.new_key(project, "current")?;
            self.change(project, vec![statement], Event::by_hub("signing_key.created", "current"))
                .await
                .map_err(|missed| missed.or(AuthError::Busy))?;
        }
        Ok(())
    }

    fn new_key(&self, project: ProjectId, state: &str) -> Result<Statement, AuthError> {
        // Of two hubs that begin on one store at the same time, one makes the current key.
        const ADD: &str = "INSERT INTO mobo_signing_key(project, kid, public, sealed, state, created_us) SELECT $1, $2, $3, $4, $5, $6 \
                           WHERE NOT EXISTS (SELECT 1 FROM mobo_signing_key WHERE project = $1 AND state = $5)";
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.signers.random).map_err(|_| broken("cannot be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &self.signers.random)
            .map_err(|_| broken("cannot be made"))?;
        let kid = uuid::Uuid::new_v8(entropy::bytes()?).to_string();
        let sealed = self.signers.seal(&kid, document.as_ref().to_vec())?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Statement::new(ADD, [int(project), text(kid), Cell::Bytes(public), Cell::Bytes(sealed), text(state), time(self.now())]))
    }

    /// Takes the next signing key into use, without a restart and without a token that stops being good: `standby` becomes `current`, and that one
    /// `previous`. Gives how many keys the JWKS has then.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn rotate(&self, project: ProjectId, actor: &str) -> Result<usize, AuthError> {
        let made = self.new_key(project, "standby")?;
        let step = |sql| Statement::new(sql, [int(project)]);
        let statements = vec![
            // For the first time there is no standby yet.
            made,
            step("DELETE FROM mobo_signing_key WHERE project = $1 AND state = 'previous'"),
            step("UPDATE mobo_signing_key SET state = 'previous' WHERE project = $1 AND state = 'current'"),
            step("UPDATE mobo_signing_key SET state = 'current' WHERE project = $1 AND state = 'standby'"),
            self.new_key(project, "standby")?,
        ];
        self.signers.forget();
        let event = Event::new("signing_key.rotated", actor, "");
        self.change(project, statements, event).await.map_err(|missed| missed.or(AuthError::Busy))?;
        self.signers.forget();
        Ok(self.keys().len())
    }

    pub(super) async fn load_keys(&self) -> Result<Vec<VerifyKey>, AuthError> {
        let rows = self.read("SELECT kid, public FROM mobo_signing_key ORDER BY created_us, kid", []).await?;
        Ok(rows.iter().filter_map(|row| Some(VerifyKey { kid: word(row, 0)?, public: PublicKey::Es256(bytes(row, 1)?) })).collect())
    }

    /// A token of these claims, signed by the project's current key.
    pub(super) async fn signed(&self, project: ProjectId, claims: &Claims) -> Result<String, AuthError> {
        let (key, pair) = self.signer(project).await?;
        token::issue(&key, claims, |bytes| {
            pair.sign(&self.signers.random, bytes).map(|signature| signature.as_ref().to_vec()).map_err(|_| broken("does not sign"))
        })
    }

    async fn signer(&self, project: ProjectId) -> Result<(VerifyKey, Arc<EcdsaKeyPair>), AuthError> {
        let known = |kid: &str| self.keys().iter().any(|key| key.kid == kid);
        let open = self.signers.open.lock().unwrap_or_else(PoisonError::into_inner).get(&project).cloned();
        if let Some(open) = open.filter(|(key, _)| known(&key.kid)) {
            return Ok(open);
        }
        const LOOK: &str = "SELECT kid, public, sealed FROM mobo_signing_key WHERE project = $1 AND state = 'current'";
        let rows = self.read(LOOK, [int(project)]).await?;
        let row = rows.first().ok_or_else(|| broken("is not there"))?;
        let (kid, public, sealed) =
            (word(row, 0).unwrap_or_default(), bytes(row, 1).unwrap_or_default(), bytes(row, 2).unwrap_or_default());
        let pair = Arc::new(self.signers.unseal(&kid, &sealed)?);
        let signer = (VerifyKey { kid, public: PublicKey::Es256(public) }, pair);
        self.signers.open.lock().unwrap_or_else(PoisonError::into_inner).insert(project, signer.clone());
        Ok(signer)
    }
}
