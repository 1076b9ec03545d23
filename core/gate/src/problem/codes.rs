//! Every code that a problem of this API can have. Programs go by them: one is never given another meaning.

/// Codes, and what each of them says.
pub(crate) const CODES: [(&str, &str); 44] = [
    ("08006", "the store is away for a moment"),
    ("21000", "a change or a removal without a filter"),
    ("22P02", "a value that is none of its type"),
    ("23502", "a value that must be there is not"),
    ("23505", "the record exists already"),
    ("25006", "a stream is only appended to"),
    ("42501", "not allowed to this caller"),
    ("42703", "there is no such column"),
    ("42883", "the type has no such operator"),
    ("53100", "the store is full"),
    ("53300", "the node is busy for a moment"),
    ("54000", "more than one request may hold"),
    ("57014", "the body took too long"),
    ("MB400", "an Idempotency-Key that is none"),
    ("MB404", "there is no such record, or no such app"),
    ("MB409", "refused by the hub, or the same write is in work"),
    ("MB410", "changes were missed: read again"),
    ("MB412", "the record has been changed meanwhile"),
    ("MB422", "an Idempotency-Key that another request has had"),
    ("MB426", "a WebSocket is taken here, and nothing else"),
    ("MB429", "too many requests, or too much at a time"),
    ("P0001", "the node refuses it, for the reason that it says"),
    ("PGRST100", "the query cannot be read"),
    ("PGRST102", "the body cannot be read"),
    ("PGRST103", "a range that cannot be"),
    ("PGRST105", "PUT names one record by its id"),
    ("PGRST106", "there is no such schema"),
    ("PGRST107", "a form of the body or of the answer that is not spoken here"),
    ("PGRST108", "the query speaks of a collection that it does not embed"),
    ("PGRST116", "the answer is not one row"),
    ("PGRST117", "the path does not take that method"),
    ("PGRST118", "rows cannot be sorted by a list"),
    ("PGRST122", "a preference that is not known, with handling=strict"),
    ("PGRST123", "sums and averages are not given"),
    ("PGRST124", "more rows than the caller allows"),
    ("PGRST125", "there is nothing at this path"),
    ("PGRST127", "this version, or this node, does not have it"),
    ("PGRST200", "no reference leads to that collection"),
    ("PGRST201", "several references lead to that collection"),
    ("PGRST202", "there is no such function"),
    ("PGRST204", "there is no such field"),
    ("PGRST205", "there is no such collection"),
    ("PGRST301", "who calls is not proven"),
    ("PGRST303", "the token is not good any more"),
];

/// Codes of the node's own troubles, which are mistakes or damage and never the caller's.
pub(crate) const OWN: [(&str, &str); 2] = [("XX000", "the node made a mistake"), ("XX001", "the store is damaged")];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { sources(&entry, found) } else { found.push(entry) }
        }
    }

    /// Texts of the form of a code, as a problem is made with them.
    fn codes(source: &str) -> impl Iterator<Item = &str> {
        let is_code = |text: &&str| {
            let is_sql = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            let starts_well = text.starts_with(|first: char| "0245PMX".contains(first));
            is_sql && starts_well && text.bytes().any(|byte| byte.is_ascii_digit())
                || text.strip_prefix("PGRST").is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        source.split('"').filter(is_code)
    }

    #[test]
    fn every_code_is_told_of() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let here = Path::new("problem/codes.rs");
        let texts: Vec<String> = files.iter().filter(|file| !file.ends_with(here)).map(|file| fs::read_to_string(file).unwrap()).collect();
        let used: BTreeSet<&str> = texts.iter().flat_map(|text| codes(text)).collect();
        let told: BTreeSet<&str> = CODES.iter().chain(&OWN).map(|(code, _)| *code).collect();
        assert_eq!(used, told);
    }
}
