//! How rows travel from one hub's store to another: as plain values, table by table, whatever the stores are made of.
//!
//! A store gives its tables and reads their rows in pages; another one writes them. Which tables there are, and with which columns, both
//! ends know from their databases, so that a table that comes with a later version travels by itself.

use crate::digest::Digest;

/// A value in a row: SQLite's five, which are enough for everything that a hub keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A number, or a truth as 0 or 1.
    Int(i64),
    /// A number with a fraction.
    Real(f64),
    /// A text; a time in RFC 3339 with microseconds; JSON.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Cell {
    /// About the memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Null | Self::Int(_) | Self::Real(_) => 0,
                Self::Text(text) => text.len(),
                Self::Bytes(bytes) => bytes.len(),
            }
    }
}

/// A cell that somebody else holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CellRef<'c> {
    /// Nothing.
    Null,
    /// As [`Cell::Int`].
    Int(i64),
    /// As [`Cell::Real`].
    Real(f64),
    /// As [`Cell::Text`].
    Text(&'c str),
    /// As [`Cell::Bytes`].
    Bytes(&'c [u8]),
}

impl<'c> From<&'c Cell> for CellRef<'c> {
    fn from(cell: &'c Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Int(number) => Self::Int(*number),
            Cell::Real(number) => Self::Real(*number),
            Cell::Text(text) => Self::Text(text),
            Cell::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

/// The cells of one row, in the order of [`Table::columns`].
pub type Row = Vec<Cell>;

/// Whose table it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TableName {
    /// One of mobo's own: `device` is `mobo_device` in SQLite and `mobo.device` in Postgres.
    Own(String),
    /// The table of the collection of that name.
    Collection(String),
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(name) => write!(f, "mobo {name}"),
            Self::Collection(name) => f.write_str(name),
        }
    }
}

/// A table whose rows travel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Its columns, by name.
    pub columns: Vec<String>,
}

/// What a table holds, whatever the order of its rows: equal at both ends once all of them have arrived unchanged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Content {
    /// How many rows there are.
    pub rows: u64,
    /// The sum of their hashes.
    pub digest: Digest,
}

impl Content {
    /// With one more row. Cells whose column is in `json` are compared by what they say, not by how it is written: Postgres keeps JSON
    /// in a form of its own.
    pub fn add(&mut self, row: &Row, json: &[bool]) {
        let mut hasher = blake3::Hasher::new();
        for (position, cell) in row.iter().enumerate() {
            let is_json = json.get(position).copied().unwrap_or(false);
            let (kind, bytes): (u8, Vec<u8>) = match cell {
                Cell::Null => (0, Vec::new()),
                Cell::Int(number) => (1, number.to_be_bytes().to_vec()),
                Cell::Real(number) => (2, number.to_be_bytes().to_vec()),
                Cell::Text(text) if is_json => (3, said(text).into_bytes()),
                Cell::Text(text) => (3, text.clone().into_bytes()),
                Cell::Bytes(bytes) => (4, bytes.clone()),
            };
            hasher.update(&[kind]).update(&(bytes.len() as u64).to_be_bytes()).update(&bytes);
        }
        self.rows += 1;
        self.digest = self.digest.plus(Digest(*hasher.finalize().as_bytes()));
    }
}

/// One writing for all writings of the same JSON; a text that is none stays as it is.
fn said(text: &str) -> String {
    serde_json::from_str(text).map_or_else(|_| text.to_owned(), |value| plain(value).to_string())
}

/// Members in the order of their names, and whole numbers without a fraction.
fn plain(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members.into_iter().collect();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(members.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => Value::from(float as i64),
            _ => Value::Number(number),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(rows: &[Row], json: &[bool]) -> Content {
        let mut content = Content::default();
        rows.iter().for_each(|row| content.add(row, json));
        content
    }

    #[test]
    fn content_is_the_same_in_any_order_and_differs_with_any_cell() {
        let rows = [
            vec![Cell::Int(1), Cell::Text("a".into()), Cell::Null],
            vec![Cell::Int(2), Cell::Text("b".into()), Cell::Bytes(vec![0])],
            vec![Cell::Int(3), Cell::Text(String::new()), Cell::Real(1.0)],
        ];
        let whole = content(&rows, &[]);
        let mut turned = rows.clone();
        turned.reverse();
        assert_eq!(content(&turned, &[]), whole);
        assert_eq!(whole.rows, 3);
        let others = [Cell::Null, Cell::Int(0), Cell::Real(0.0), Cell::Text("0".into()), Cell::Bytes(vec![48])];
        for row in 0..3 {
            for column in 0..3 {
                for other in &others {
                    let mut changed = rows.clone();
                    let cell = std::mem::replace(&mut changed[row][column], other.clone());
                    assert_eq!(content(&changed, &[]) == whole, cell == *other, "{row} {column} {other:?}");
                }
            }
        }
        assert_ne!(content(&rows[..2], &[]), whole);
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        let cases = [
            (r#"{"b":1,"a":[1e23,1.0]}"#, r#"{"a": [100000000000000000000000, 1], "b": 1}"#, true),
            ("9007199254740993", "9007199254740992", false),
            ("\"1\"", "1", false),
            ("not json", "not json", true),
        ];
        for (one, other, same) in cases {
            let of = |text: &str| content(&[vec![Cell::Text(text.into())]], &[true]);
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }
}
