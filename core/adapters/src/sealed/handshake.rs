//! How a way becomes a link.

use std::sync::Arc;

use mobo_core::ids::PublicKey;
use mobo_core::limits;
use mobo_core::link::LinkError;
use mobo_core::trust::KeyPair;
use mobo_protocol::sealed::{Agreed, LinkId, Opening, Packet, RefusalReason, answer};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use super::{Carrier, Conversation, SealedLink, Setup, Source};

/// Opens a device's link to the hub that holds `hub`.
pub(crate) async fn dial(
    mut carrier: Box<dyn Carrier>,
    mut source: Box<dyn Source>,
    keys: &KeyPair,
    hub: PublicKey,
    setup: Setup,
) -> Result<SealedLink, LinkError> {
    let unreachable = |why: String| LinkError::Unreachable { peer: setup.peer.clone(), why };
    let opening = Opening::new(keys, hub, (LinkId(random()?), random()?), setup.packet_bytes_max);
    let agreed = async {
        carrier.send(opening.packet()).await?;
        agreement(source.as_mut(), &opening, &setup.peer).await
    };
    let agreed = match timeout(limits::HELLO_TIMEOUT, agreed).await {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(error)) => {
            carrier.close().await;
            return Err(match error {
                LinkError::Closed(why) => unreachable(why),
                LinkError::Unreachable { .. }
                | LinkError::WrongPeer { .. }
                | LinkError::CannotListen { .. }
                | LinkError::Silent
                | LinkError::Protocol(_) => error,
            });
        }
        Err(_) => {
            carrier.close().await;
            return Err(unreachable("no hub answers there: check that it runs and is connected to its broker".into()));
        }
    };
    let (link, conversation) = SealedLink::start(agreed, carrier, setup);
    tokio::spawn(feed(source, conversation));
    Ok(link)
}

async fn agreement(source: &mut dyn Source, opening: &Opening, peer: &str) -> Result<Agreed, LinkError> {
    let wrong = || LinkError::WrongPeer { peer: peer.to_owned() };
    loop {
        let packet = source.next().await?;
        match Packet::decode(&packet) {
            Ok(Packet::Accept(link, body)) if link == opening.link() => return opening.accepted(body).ok_or_else(wrong),
            Ok(Packet::Refuse(link, refusal)) if link == opening.link() => {
                return Err(match refusal.reason {
                    RefusalReason::WrongHub => wrong(),
                    RefusalReason::Version | RefusalReason::Malformed | RefusalReason::Busy | RefusalReason::Other(_) => {
                        LinkError::Unreachable { peer: peer.to_owned(), why: refusal.detail }
                    }
                });
            }
            // Of another link of this device, or somebody's noise.
            Ok(Packet::Open(_) | Packet::Accept(..) | Packet::Refuse(..) | Packet::Sealed(..)) | Err(_) => {}
        }
    }
}

/// Takes a device's link at the hub that holds `keys`, on a way that carries one link.
pub(crate) async fn accept(
    mut carrier: Box<dyn Carrier>,
    mut source: Box<dyn Source>,
    keys: &KeyPair,
    setup: Setup,
) -> Result<SealedLink, LinkError> {
    let packet = source.next().await?;
    let Ok(Packet::Open(open)) = Packet::decode(&packet) else {
        return Err(LinkError::Protocol("its first packet opens no link".into()));
    };
    let agreed = match answer(keys, open, random()?, setup.packet_bytes_max) {
        Ok((accept, agreed)) => {
            carrier.send(accept).await?;
            agreed
        }
        Err((packet, refusal)) => {
            if let Some(packet) = packet {
                carrier.send(packet).await?;
            }
            carrier.close().await;
            return Err(LinkError::Protocol(refusal.detail));
        }
    };
    let (link, conversation) = SealedLink::start(agreed, carrier, setup);
    while !conversation.is_confirmed() {
        let packet = source.next().await?;
        if let Ok(Packet::Sealed(_, sealed)) = Packet::decode(&packet) {
            conversation.packet(sealed);
        }
    }
    tokio::spawn(feed(source, conversation));
    Ok(link)
}

/// Gives a link what arrives, until it is over.
async fn feed(mut source: Box<dyn Source>, conversation: Arc<Conversation>) {
    while !conversation.is_gone() {
        let next = tokio::select! {
            next = source.next() => next,
            () = conversation.gone() => return,
        };
        match next.as_deref().map(Packet::decode) {
            Ok(Ok(Packet::Sealed(_, sealed))) => {
                conversation.packet(sealed);
            }
            Ok(Ok(Packet::Open(_) | Packet::Accept(..) | Packet::Refuse(..)) | Err(_)) => {}
            Err(error) => return conversation.lost(error.clone()),
        }
    }
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| LinkError::Unreachable { peer: "this machine".into(), why: "the system gives no randomness".into() })?;
    Ok(bytes)
}
