//! Sealed links: openings, keys and packets, and the tokens that lead to them.

use mobo_core::ids::Lane;
use mobo_core::link::Channel;
use mobo_core::trust::{Statement, mask_secret};
use mobo_protocol::JoinToken;
use mobo_protocol::sealed::{
    Agreed, Content, LinkId, Opened, Opening, Packet, Refusal, RefusalReason, answer, broker_password, hub_filter, topic,
};

use crate::core_forms::{form, statement, token};
use crate::vectors::Form;
use crate::world::{PROJECT, SECRET, device, hub};

const LINK: LinkId = LinkId([0x71; 8]);
/// The ephemeral secrets of the device and of the hub.
const SECRETS: [[u8; 32]; 2] = [[0x66; 32], [0x77; 32]];

fn opening() -> Opening {
    Opening::new(&device(), hub().public(), (LINK, SECRETS[0]), 65_536)
}

/// The hub's answer, and both ends of the link.
fn agreed() -> (Vec<u8>, Agreed, Agreed) {
    let packet = opening().packet();
    let Ok(Packet::Open(open)) = Packet::decode(&packet) else { panic!("an opening") };
    let (accept, at_hub) = answer(&hub(), open, SECRETS[1], 16_384).unwrap();
    let Ok(Packet::Accept(LINK, body)) = Packet::decode(&accept) else { panic!("an answer") };
    let at_device = opening().accepted(body).unwrap();
    (accept, at_device, at_hub)
}

fn refusal() -> Packet<'static> {
    Packet::Refuse(LINK, Refusal { reason: RefusalReason::WrongHub, detail: "another hub".into() })
}

pub(crate) fn cases() -> Vec<Form> {
    let mut cases = of_links();
    cases.extend(of_joins());
    cases
}

/// What a join over such a link shows.
fn of_joins() -> Vec<Form> {
    let (_, _, at_hub) = agreed();
    let url_token = JoinToken {
        addresses: ["192.0.2.1:8443", "mqtt://192.0.2.1:1883", "wss://hub.example/sync/v1"].map(String::from).into(),
        ..token()
    };
    let masking_token = JoinToken { masks: true, ..token() };
    let masking_binding = at_hub.binding;
    vec![
        form("join-token-links", "Join token with addresses of other transports.", url_token.to_text().into_bytes(), move |golden| {
            assert_eq!(JoinToken::parse(std::str::from_utf8(golden).unwrap()), Ok(url_token.clone()));
        }),
        form("join-token-masks", "Join token of a hub that takes a masked secret.", masking_token.to_text().into_bytes(), move |golden| {
            assert_eq!(JoinToken::parse(std::str::from_utf8(golden).unwrap()), Ok(masking_token.clone()));
        }),
        form(
            "masked-secret",
            "The secret of core/join-token as it crosses the link of core/link-binding.",
            mask_secret(&masking_binding, &SECRET).unwrap(),
            move |golden| assert_eq!(mask_secret(&masking_binding, golden).unwrap(), SECRET),
        ),
    ]
}

fn of_links() -> Vec<Form> {
    let (accept, at_device, at_hub) = agreed();
    assert_eq!(at_device.binding, at_hub.binding);
    let topics = [topic(PROJECT, device().device(), true), topic(PROJECT, device().device(), false), hub_filter(PROJECT)];
    let (user, password) = broker_password(&device(), &hub().public());
    vec![
        form(
            "link-open",
            "Packet that opens a sealed link: link 8 x 71, ephemeral secret of the device 32 x 66.",
            opening().packet(),
            |golden| {
                assert!(matches!(Packet::decode(golden), Ok(Packet::Open(_))));
            },
        ),
        form("link-accept", "The hub's answer to core/link-open: ephemeral secret of the hub 32 x 77.", accept, |golden| {
            let Ok(Packet::Accept(LINK, body)) = Packet::decode(golden) else { panic!("an answer") };
            assert_eq!(opening().accepted(body).unwrap().binding, agreed().1.binding);
        }),
        form("link-refuse", "Another hub's answer to it.", refusal().encode(), |golden| assert_eq!(Packet::decode(golden), Ok(refusal()))),
        form(
            "link-binding",
            "The channel binding of the link between core/link-open and core/link-accept.",
            at_hub.binding.to_vec(),
            |_| {},
        ),
        packets("link-up", "The packets that the device sends first on that link: alive, a piece of lane 0, a credit.", at_device),
        packets("link-down", "The packets that the hub sends first on that link: alive, a piece of the control channel, a close.", at_hub),
        form(
            "link-topics",
            "The MQTT topics of the device, up and down, and what a hub subscribes to; a line each.",
            topics.join("\n").into(),
            |_| {},
        ),
        form(
            "broker-login",
            "User name and password of the device at the hub's embedded broker; a line each.",
            format!("{user}\n{password}").into(),
            |_| {},
        ),
        statement(
            "statement-broker",
            "What a device signs as its password, then its signature.",
            &Statement::Broker(&hub().public()),
            false,
        ),
        statement(
            "statement-link-open",
            "What a device signs of an opening of the bytes \"open\", then its signature.",
            &Statement::LinkOpen(b"open"),
            false,
        ),
        statement(
            "statement-link-accept",
            "What a hub signs of its answer \"accept\" to it, then its signature.",
            &Statement::LinkAccept { open: b"open", accept: b"accept" },
            true,
        ),
    ]
}

/// Three packets after each other, each with its length before it in two bytes.
fn packets(name: &'static str, about: &'static str, mut from: Agreed) -> Form {
    let contents = if name == "link-up" {
        [Content::Alive, Content::Piece(Channel::Lane(Lane::State), b"bytes of frames"), Content::Credit(Channel::Down, 65_536)]
    } else {
        [Content::Alive, Content::Piece(Channel::Control, b"bytes of frames"), Content::Close(false, b"session ended")]
    };
    let bytes = contents.iter().flat_map(|content| {
        let packet = from.sealer.seal(content);
        [u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec(), packet].concat()
    });
    form(name, &*format!("{about} Each has its length before it, in two bytes.").leak(), bytes.collect(), move |golden| {
        let (_, at_device, at_hub) = agreed();
        let mut opener = if name == "link-up" { at_hub.opener } else { at_device.opener };
        let mut rest = golden;
        for content in &contents {
            let (length, bytes) = rest.split_first_chunk::<2>().unwrap();
            let (packet, more) = bytes.split_at(usize::from(u16::from_be_bytes(*length)));
            let Ok(Packet::Sealed(LINK, sealed)) = Packet::decode(packet) else { panic!("{name}") };
            let Opened::Next(opened) = opener.open(sealed) else { panic!("{name}") };
            assert_eq!(Content::decode(opened), Ok(Some(content.clone())));
            rest = more;
        }
        assert!(rest.is_empty());
    })
}
