//! Offer, OfferAck, Schema, SchemaOffer.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{Mac, Timeline};
use mobo_core::limits;
use mobo_core::message::{Definition, Message, Offer, OfferAck, SchemaUpdate};
use mobo_core::schema::Collection;

use crate::frame::{kind, list, need};
use crate::pull::{bucket, decode_item, encode_items};

pub(crate) fn encode_offer(w: &mut Writer, offer: &Offer) -> u8 {
    w.map(4).u64(0).u64(offer.bucket.get()).u64(1).bytes(offer.timeline.as_bytes()).u64(2);
    encode_items(w, &offer.rows);
    w.u64(3).bool(offer.more);
    kind::OFFER
}

pub(crate) fn decode_offer(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut of, mut timeline, mut rows, mut more) = (None, None, Vec::new(), false);
    r.each_key(|key, r| {
        match key {
            0 => of = Some(bucket(r)?),
            1 => timeline = Some(Timeline(r.fixed()?)),
            2 => rows = list(r, limits::BATCH_ITEMS_MAX, decode_item)?,
            3 => more = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::Offer(Offer { bucket: need(of, "bucket")?, timeline: need(timeline, "timeline")?, rows, more }))
}

pub(crate) fn encode_offer_ack(w: &mut Writer, ack: &OfferAck) -> u8 {
    w.map(3).u64(0).u64(ack.bucket.get()).u64(1).u64(ack.joined).u64(2).u64(ack.refused);
    kind::OFFER_ACK
}

pub(crate) fn decode_offer_ack(r: &mut Reader<'_>) -> Result<Message, Malformed> {
    let (mut of, mut joined, mut refused) = (None, 0, 0);
    r.each_key(|key, r| {
        match key {
            0 => of = Some(bucket(r)?),
            1 => joined = r.u64()?,
            2 => refused = r.u64()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(Message::OfferAck(OfferAck { bucket: need(of, "bucket")?, joined, refused }))
}

pub(crate) fn encode_schema(w: &mut Writer, update: &SchemaUpdate, kind: u8) -> u8 {
    w.map(4).u64(0).bytes(update.timeline.as_bytes()).u64(1).u64(update.rev).u64(2).array(update.definitions.len());
    for definition in &update.definitions {
        w.array(2).bytes(&definition.bytes).bytes(definition.mac.as_bytes());
    }
    w.u64(3).bool(update.more);
    kind
}

pub(crate) fn decode_schema(r: &mut Reader<'_>) -> Result<SchemaUpdate, Malformed> {
    let (mut timeline, mut rev, mut definitions, mut more) = (None, None, Vec::new(), false);
    r.each_key(|key, r| {
        match key {
            0 => timeline = Some(Timeline(r.fixed()?)),
            1 => rev = Some(r.u63()?),
            2 => definitions = list(r, limits::COLLECTIONS_MAX, decode_definition)?,
            3 => more = r.bool()?,
            _ => r.skip()?,
        }
        Ok(())
    })?;
    Ok(SchemaUpdate { timeline: need(timeline, "timeline")?, rev: need(rev, "rev")?, definitions, more })
}

/// A definition is kept also where this version cannot read it: it belongs to somebody who can.
fn decode_definition(r: &mut Reader<'_>) -> Result<Definition, Malformed> {
    r.tuple(2, |r| {
        let (bytes, mac) = (r.bytes()?, Mac(r.fixed()?));
        let mut inner = Reader::new(bytes);
        let collection = Collection::decode(&mut inner).ok().filter(|_| inner.end().is_ok());
        Ok(Definition { bytes: bytes.to_vec(), collection, mac })
    })
}
