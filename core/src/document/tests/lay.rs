//! Entries that are laid over a document together give what they give one by one.

use super::*;
use crate::document::lay::Laying;
use crate::message::Code;

/// What both ways give: the document, and what was refused.
fn one_by_one(base: &Document, sent: &[&Sent]) -> (Document, Vec<Option<Code>>) {
    let (collection, mut document) = (collection(), base.clone());
    let codes = sent.iter().map(|sent| apply(&collection, &mut document, sent).err().map(|refusal| refusal.code)).collect();
    (document, codes)
}

fn together(base: &Document, sent: &[&Sent]) -> (Document, Vec<Option<Code>>) {
    let collection = collection();
    let mut laying = Laying::over(&collection, base).unwrap();
    let mut codes = Vec::new();
    for sent in sent {
        let fits = laying.fits(&[&sent.op], origin(sent.device)).err().map(|refusal| refusal.code);
        let laid = laying.lay(&[&sent.op], origin(sent.device)).err().map(|refusal| refusal.code);
        assert_eq!(fits, laid, "what fits is laid");
        codes.push(laid);
    }
    (laying.finish().unwrap().unwrap_or_else(|| base.clone()), codes)
}

#[test]
fn entries_laid_together_are_as_if_laid_one_by_one() {
    for seed in 0..40 {
        let mut seeded = Seeded(seed);
        let mut base = Person::new(1);
        base.edit(Intent::Put, json!({ "body": "one", "hours": 1, "count": 1 }));
        let mut writer = base.fork(2);
        for n in 0..8 {
            let fields = match seeded.below(4) {
                0 => json!({ "body": { "$splice": [0, 0, format!("{n} ")] } }),
                1 => json!({ "hours": { "$inc": 1 } }),
                2 => json!({ "tags": { "$push": [n] } }),
                _ => json!({ "count": n + 10 }),
            };
            writer.edit(Intent::Patch, fields);
        }
        // Some are there already, and one may be missing: what builds on it is refused.
        let merged = seeded.below(4);
        for sent in &writer.sent[..merged] {
            base.take(sent).unwrap();
        }
        let hole = seeded.below(16);
        let sent: Vec<&Sent> = writer.sent.iter().enumerate().filter(|(nth, _)| *nth != hole).map(|(_, sent)| sent).collect();
        let ((one, one_codes), (all, all_codes)) = (one_by_one(&base.document, &sent), together(&base.document, &sent));
        assert_eq!(all_codes, one_codes, "seed {seed}");
        assert_eq!((all.heads(), row(&collection(), &all)), (one.heads(), row(&collection(), &one)), "seed {seed}");
        assert_eq!(all.saved, one.saved, "seed {seed}");
    }
}

#[test]
fn a_document_that_nothing_is_laid_over_stays_as_it_is() {
    let mut base = Person::new(1);
    base.edit(Intent::Put, json!({ "body": "one" }));
    let (collection, sent) = (collection(), base.sent.clone());
    let mut laying = Laying::over(&collection, &base.document).unwrap();
    laying.lay(&[&sent[0].op], origin(1)).unwrap();
    let forged = laying.lay(&[&base.fork(2).edit(Intent::Patch, json!({ "count": 2 })).sent[0].op], origin(3));
    assert_eq!(forged.unwrap_err().code, Code::FORGED_ACTOR);
    assert!(laying.finish().unwrap().is_none());
}
