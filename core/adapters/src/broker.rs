//! The hub's embedded MQTT broker, so that devices reach a hub over MQTT without anything else to set up.
//!
//! It keeps nothing: no session, no retained message, no queue of an absent client. A device shows that it holds its key, and may publish
//! to its own topic and hear its own, and nothing else; the hub may hear all of its project and publish to all.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use mobo_core::ids::{DeviceId, ProjectId, PublicKey, Signature};
use mobo_core::limits;
use mobo_core::link::LinkError;
use mobo_core::trust::{KeyPair, Statement};
use mobo_protocol::sealed::{hub_filter, topic};
use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::config::{BrokerConfig, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::reasons::bind_advice;

/// The user name of the hub itself.
const HUB: &str = "hub";

/// A broker that runs until it is closed or dropped.
pub struct EmbeddedBroker {
    address: SocketAddr,
    login: (String, String),
    stop: BrokerShutdownHandle,
    running: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBroker").field("address", &self.address).finish_non_exhaustive()
    }
}

impl EmbeddedBroker {
    /// Listens at `address` for the devices of a project, and for the hub that holds `keys`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`LinkError::CannotListen`].
    pub async fn bind(address: SocketAddr, keys: &KeyPair, project: ProjectId) -> Result<Self, LinkError> {
        let cannot = |why: String| LinkError::CannotListen { address, why };
        // Its own error does not tell one reason from another.
        TcpListener::bind(address).await.map_err(|error| cannot(bind_advice(&error, "TCP")))?;
        let secret: [u8; 32] = crate::sealed::random()?;
        let login = (HUB.to_owned(), hex(&secret));
        let broker = MqttBroker::with_config(config(address)).await.map_err(|error| cannot(error.to_string()))?;
        let rights = Arc::new(Rights { project, hub: keys.public(), password: login.1.clone() });
        let mut broker = broker.with_auth_provider(rights);
        let address = broker.local_addr().ok_or_else(|| cannot("the broker does not say where it listens".into()))?;
        let stop = broker.shutdown_handle();
        let mut running = JoinSet::new();
        running.spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "the embedded broker ended");
            }
        });
        Ok(Self { address, login, stop, running: Mutex::new(running) })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for the hub itself: as it listens, or on loopback where it listens everywhere.
    #[must_use]
    pub fn url(&self) -> String {
        let port = self.address.port();
        match self.address {
            address if !address.ip().is_unspecified() => format!("mqtt://{address}"),
            SocketAddr::V4(_) => format!("mqtt://127.0.0.1:{port}"),
            SocketAddr::V6(_) => format!("mqtt://[::1]:{port}"),
        }
    }

    /// The hub's own user name and password, made anew each time.
    #[must_use]
    pub fn hub_login(&self) -> (String, String) {
        self.login.clone()
    }

    /// Stops it; connections that are left are cut.
    pub async fn close(&self) {
        self.stop.shutdown();
        let mut running = self.running.lock().await;
        let stopped = async { while running.join_next().await.is_some() {} };
        if timeout(limits::LINK_CLOSE_TIMEOUT, stopped).await.is_err() {
            running.shutdown().await;
        }
    }
}

fn config(address: SocketAddr) -> BrokerConfig {
    BrokerConfig {
        // Each device has two connections.
        max_clients: 2 * limits::SESSIONS_MAX + 16,
        max_packet_size: limits::PACKET_BYTES_MAX + 1_024,
        session_expiry_interval: std::time::Duration::ZERO,
        retain_available: false,
        maximum_qos: 0,
        topic_alias_maximum: 0,
        shared_subscription_available: false,
        subscription_identifier_available: false,
        max_subscriptions_per_client: 1,
        client_channel_capacity: limits::BROKER_QUEUE_MAX,
        sys_topics_enabled: false,
        storage_config: StorageConfig { enable_persistence: false, ..StorageConfig::default() },
        ..BrokerConfig::default().with_bind_address(address)
    }
}

/// Who may do what.
struct Rights {
    project: ProjectId,
    hub: PublicKey,
    password: String,
}

impl Rights {
    /// The user behind a connection; `None` where it is nobody.
    fn user(&self, connect: &ConnectPacket) -> Option<String> {
        let (user, password) = (connect.username.as_deref()?, connect.password.as_deref()?);
        // Nobody sends a will here, and the rights of one are not asked for when it is published.
        if connect.will.is_some() {
            return None;
        }
        let name = if user == HUB {
            same(password, self.password.as_bytes()).then(|| HUB.to_owned())?
        } else {
            let key = PublicKey(unhex(user.as_bytes())?);
            let signature = Signature(unhex(password)?);
            Statement::Broker(&self.hub).is_signed_by(&key, &signature).then(|| DeviceId::of(&key).to_string())?
        };
        // A connection ends an earlier one of the same id: nobody may choose that of another.
        connect.client_id.strip_prefix(&name)?.starts_with('-').then_some(name)
    }

    fn may_publish(&self, user: Option<&str>, to: &str) -> bool {
        match user {
            Some(HUB) => to.strip_prefix(&format!("m/{}/", self.project.get())).is_some_and(|rest| rest.ends_with("/d")),
            Some(device) => self.own(device, true).is_some_and(|own| own == to),
            None => false,
        }
    }

    fn may_hear(&self, user: Option<&str>, filter: &str) -> bool {
        match user {
            Some(HUB) => filter == hub_filter(self.project),
            Some(device) => self.own(device, false).is_some_and(|own| own == filter),
            None => false,
        }
    }

    fn own(&self, device: &str, up: bool) -> Option<String> {
        Some(topic(self.project, DeviceId(unhex(device.as_bytes())?), up))
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Rights {
    fn authenticate<'a>(&'a self, connect: &'a ConnectPacket, peer: SocketAddr) -> Answer<'a, mqtt5::error::Result<AuthResult>> {
        Box::pin(async move {
            Ok(self.user(connect).map_or_else(
                || {
                    tracing::info!(%peer, "refused a client of the broker: it did not show who it is");
                    // A device that signs for a hub signs for another one.
                    let is_device = connect.username.as_ref().is_some_and(|user| unhex::<32>(user.as_bytes()).is_some());
                    AuthResult::fail(if is_device { ReasonCode::UseAnotherServer } else { ReasonCode::NotAuthorized })
                },
                AuthResult::success_with_user,
            ))
        })
    }

    fn authorize_publish<'a>(&'a self, _: &str, user: Option<&'a str>, to: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.may_publish(user, to) })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, user: Option<&'a str>, filter: &'a str) -> Answer<'a, bool> {
        Box::pin(async move { self.may_hear(user, filter) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes?.try_into().ok()
}

/// Compares in a time that does not tell where the two differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use mobo_protocol::sealed::broker_password;

    use super::*;

    const PROJECT: ProjectId = match ProjectId::new(7) {
        Some(project) => project,
        None => panic!("not 0"),
    };

    fn rights() -> Rights {
        Rights { project: PROJECT, hub: KeyPair::from_secret(&[1; 32]).public(), password: "secret".into() }
    }

    #[test]
    fn everybody_reaches_his_own_topics_only() {
        let (rights, one, two) = (rights(), KeyPair::from_secret(&[2; 32]).device(), KeyPair::from_secret(&[3; 32]).device());
        let (one_up, one_down) = (topic(PROJECT, one, true), topic(PROJECT, one, false));
        let device = one.to_string();
        for (user, to, publish, hear) in [
            (Some(device.as_str()), one_up.as_str(), true, false),
            (Some(&device), &one_down, false, true),
            (Some(&device), &topic(PROJECT, two, true), false, false),
            (Some(&device), &topic(PROJECT, two, false), false, false),
            (Some(&device), "#", false, false),
            (Some(&device), "+/+/+/d", false, false),
            (Some(&device), &one_down.replace("m/7", "m/8"), false, false),
            (Some(&device), &format!("$share/x/{one_down}"), false, false),
            (Some(&device), "$SYS/#", false, false),
            (Some(HUB), &one_down, true, false),
            (Some(HUB), "m/7/+/u", false, true),
            (Some(HUB), "#", false, false),
            (Some(HUB), "m/8/+/u", false, false),
            (Some("nobody"), &one_up, false, false),
            (None, &one_up, false, false),
        ] {
            assert_eq!((rights.may_publish(user, to), rights.may_hear(user, to)), (publish, hear), "{user:?} {to}");
        }
    }

    #[test]
    fn nobody_is_taken_for_somebody_else() {
        let (rights, keys) = (rights(), KeyPair::from_secret(&[2; 32]));
        let device = keys.device().to_string();
        let (user, password) = broker_password(&keys, &rights.hub);
        let (_, elsewhere) = broker_password(&keys, &keys.public());
        let (other, _) = broker_password(&KeyPair::from_secret(&[3; 32]), &rights.hub);
        let id = format!("{device}-1");
        for (id, user, password, want) in [
            (id.as_str(), user.as_str(), password.as_str(), Some(device.as_str())),
            (&id, &user, &elsewhere, None),
            (&id, &other, &password, None),
            (&id, &user, "", None),
            (&id, "", "", None),
            (&device, &user, &password, None),
            ("hub-1", &user, &password, None),
            ("hub-1", HUB, "secret", Some(HUB)),
            ("hub-1", HUB, "secret2", None),
            (&id, HUB, "secret", None),
        ] {
            let options = mqtt5::ConnectOptions::new(id);
            let mut connect = ConnectPacket::new(options.protocol_options);
            connect.client_id = id.to_owned();
            connect.username = Some(user.to_owned());
            connect.password = Some(password.as_bytes().to_vec());
            assert_eq!(rights.user(&connect).as_deref(), want, "{id} {user}");
        }
    }
}
