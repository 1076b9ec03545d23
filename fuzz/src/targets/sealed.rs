//! What is inside frames, sealed or signed.

use mobo_core::document::op as document_op;
use mobo_core::entry::Header;
use mobo_core::table::op as table_op;
use mobo_core::trust::{self, Certificate, KeyPair};
use mobo_protocol::sealed::{self, Content, Packet};

use super::{Answer, answer, outcome, shape};

/// Headers, payloads, certificates, checkpoints: each decoder gets the same bytes.
pub(super) fn entry(bytes: &[u8]) -> Answer {
    let header = Header::decode(bytes).inspect(|header| {
        // Not the header itself: a wall clock that says of itself that it is none is read and not written.
        let again = Header::decode(&header.encode()).map(|header| header.encode());
        assert_eq!(again, Ok(header.encode()), "a header has one spelling");
    });
    let ops = table_op::decode_payload(bytes).inspect(|ops| {
        assert_eq!(table_op::decode_payload(&table_op::encode_payload(ops, None)).as_ref(), Ok(ops), "operations stay the same");
    });
    let changes = document_op::decode_payload(bytes).inspect(|ops| {
        let again = document_op::encode_payload(ops, None);
        assert_eq!(document_op::decode_payload(&again).as_ref(), Ok(ops), "changes stay the same");
    });
    let certificate = Certificate::decode(bytes).inspect(|certificate| {
        assert_eq!(Certificate::decode(&certificate.encode()).as_ref(), Ok(certificate), "a certificate stays the same");
    });
    let checkpoint = trust::decode_checkpoint(bytes).inspect(|(timeline, heads)| {
        assert_eq!(trust::checkpoint_bytes(*timeline, heads), bytes, "a checkpoint has one spelling");
    });
    answer(&[outcome(&header), outcome(&ops), outcome(&changes), outcome(&certificate), outcome(&checkpoint)])
}

/// What crosses a broker before anybody has shown who they are, and what an open link carries.
pub(super) fn packet(bytes: &[u8]) -> Answer {
    let decoded = Packet::decode(bytes);
    let answered = match &decoded {
        Ok(Packet::Open(open)) => match sealed::answer(&KeyPair::from_secret(&[0x11; 32]), open, [0x77; 32], 16_384) {
            Ok((packet, _)) => shape(&format!("{:?}", Packet::decode(&packet))),
            Err((_, refusal)) => shape(&refusal.detail),
        },
        Ok(Packet::Accept(..) | Packet::Refuse(..) | Packet::Sealed(..)) | Err(_) => String::new(),
    };
    let content = Content::decode(bytes).map(|content| format!("{content:?}"));
    answer(&(outcome(&decoded), answered, outcome(&content)))
}
