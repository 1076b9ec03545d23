//! Rows as CSV (RFC 4180), and as forms: text that the types of columns turn into values.

use mobo_core::json::value_to_json;
use mobo_core::query::{Column, read_value};
use mobo_core::schema::FieldType;
use mobo_core::{limits, names};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json};

use crate::body::Rows;
use crate::problem::Problem;

/// Writes rows with a line of their names in front. Null is an empty field, empty text is `""`.
pub(crate) fn write<'n>(names: impl IntoIterator<Item = &'n str>, rows: &[Map<String, Json>]) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = String::new();
    line(&mut text, names.iter().map(|name| Some((*name).to_owned())));
    for row in rows {
        line(&mut text, names.iter().map(|name| row.get(*name).and_then(plain)));
    }
    text
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => Some(value.to_string()),
    }
}

fn line(text: &mut String, fields: impl Iterator<Item = Option<String>>) {
    for (n, field) in fields.enumerate() {
        if n > 0 {
            text.push(',');
        }
        let Some(field) = field else { continue };
        if field.is_empty() || field.contains(['"', ',', '\n', '\r']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(&field);
        }
    }
    text.push('\n');
}

/// Reads rows below a line of names. `NULL` without quotes is null; so is an empty field without quotes, unless its column is text.
///
/// # Errors
///
/// 400 with the line that is not as wide as the first one, or whose value is none of its column's type.
pub(crate) fn read(bytes: &[u8], columns: &[Column]) -> Result<Rows, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::bad_body("the body is not UTF-8"))?;
    let mut lines = Lines { rest: text.strip_prefix('\u{feff}').unwrap_or(text), number: 0 };
    let Some(names) = lines.next().transpose()? else {
        return Err(Problem::bad_body("the body is empty").hint("send a line with the names of the columns, and a line for each row"));
    };
    let names: Vec<String> = names.into_iter().map(|field| field.text).collect();
    if let Some(name) = names::twice(&names) {
        return Err(Problem::bad_body(format!("the first line names \"{name}\" twice")));
    }
    let mut rows = Vec::new();
    while let Some(fields) = lines.next().transpose()? {
        let number = lines.number;
        if fields.len() != names.len() {
            let message = format!("line {number} has {} fields, and the first line has {}", fields.len(), names.len());
            return Err(Problem::bad_body(message));
        }
        if rows.len() > limits::ROWS_PER_WRITE_MAX {
            break;
        }
        let field = |(name, field): (&String, Field)| Ok((name.clone(), typed(columns, name, &field)?));
        rows.push(
            names
                .iter()
                .zip(fields)
                .map(field)
                .collect::<Result<_, Problem>>()
                .map_err(|problem| problem.details(format!("in line {number}")))?,
        );
    }
    Ok(rows)
}

/// Reads the one row that a form is.
///
/// # Errors
///
/// 400 for a value that is none of its column's type.
pub(crate) fn read_form(bytes: &[u8], columns: &[Column]) -> Result<Rows, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::bad_body("the body is not UTF-8"))?;
    let decode = |text: &str| match percent_decode_str(&text.replace('+', " ")).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Problem::bad_body("the form is not UTF-8 in percent encoding")),
    };
    let mut row = Map::new();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        let value = typed(columns, &name, &Field { text: value, quoted: true })?;
        if row.insert(name.clone(), value).is_some() {
            return Err(Problem::bad_body(format!("the form gives \"{name}\" twice")));
        }
    }
    Ok(vec![row])
}

fn typed(columns: &[Column], name: &str, field: &Field) -> Result<Json, Problem> {
    let kind = columns.iter().find(|column| column.name == name).map_or(FieldType::Text, |column| column.kind.field());
    let is_null = field.text == "NULL" || field.text.is_empty() && kind != FieldType::Text;
    if is_null && !field.quoted {
        return Ok(Json::Null);
    }
    Ok(value_to_json(&read_value(name, kind, &field.text)?, kind))
}

struct Field {
    text: String,
    quoted: bool,
}

struct Lines<'t> {
    rest: &'t str,
    /// Of the line that was read last, counted in lines of fields.
    number: usize,
}

impl Iterator for Lines<'_> {
    type Item = Result<Vec<Field>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let mut fields = Vec::new();
        loop {
            let (field, end) = match self.field() {
                Ok(read) => read,
                Err(problem) => return Some(Err(problem)),
            };
            fields.push(field);
            if end {
                return Some(Ok(fields));
            }
        }
    }
}

impl Lines<'_> {
    /// The next field, and whether its line ends with it.
    fn field(&mut self) -> Result<(Field, bool), Problem> {
        let wrong = |number: usize, what: &str| Problem::bad_body(format!("line {number}: {what}"));
        let mut field = Field { text: String::new(), quoted: self.rest.starts_with('"') };
        if field.quoted {
            let mut rest = self.rest.get(1..).unwrap_or_default();
            loop {
                let (inner, after) = rest.split_once('"').ok_or_else(|| wrong(self.number, "a quoted field is not closed"))?;
                field.text.push_str(inner);
                rest = after;
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.text.push('"');
                        rest = after;
                    }
                    None => break,
                }
            }
            self.rest = rest;
        } else {
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let plain = self.rest.get(..end).unwrap_or_default();
            let is_last = !self.rest.get(end..).is_some_and(|rest| rest.starts_with(','));
            field.text.push_str(if is_last { plain.strip_suffix('\r').unwrap_or(plain) } else { plain });
            self.rest = self.rest.get(end..).unwrap_or_default();
        }
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return Ok((field, false));
        }
        let rest = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
        match rest {
            Some(rest) => self.rest = rest,
            None if self.rest.is_empty() => {}
            None => return Err(wrong(self.number, "a quoted field ends at its quote")),
        }
        Ok((field, true))
    }
}

#[cfg(test)]
mod tests {
    use mobo_core::query::ColumnType;
    use serde_json::json;

    use super::*;

    fn columns() -> Vec<Column> {
        [("t", FieldType::Text), ("n", FieldType::Int), ("m", FieldType::Json), ("d", FieldType::Bool)]
            .map(|(name, kind)| Column { name: name.to_owned(), kind: ColumnType::Field(kind) })
            .to_vec()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let Json::Array(rows) = json!([
            {"t": "a, \"b\"\n", "n": 7, "m": {"k": [1, null]}, "d": true},
            {"t": "", "n": null, "m": null, "d": null},
            {"t": "NULL,", "n": -1, "m": "x", "d": false},
        ]) else {
            panic!("rows")
        };
        let rows: Vec<_> = rows.into_iter().map(|row| row.as_object().unwrap().clone()).collect();
        let text = write(["t", "n", "m", "d"], &rows);
        assert!(text.starts_with("t,n,m,d\n\"a, \"\"b\"\"\n\",7,"), "{text}");
        let text = text.replace(",x,", ",\"\"\"x\"\"\",");
        assert_eq!(read(text.as_bytes(), &columns()).unwrap(), rows);
        assert_eq!(read(text.replace('\n', "\r\n").as_bytes(), &columns()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_csv_says_where() {
        for (text, want) in [
            ("", "empty"),
            ("t,n\na\n", "line 2 has 1 fields"),
            ("t,n\na,b\n", "integer"),
            ("t\n\"a\n", "not closed"),
            ("t\n\"a\"b\n", "ends at its quote"),
        ] {
            let problem = format!("{:?}", read(text.as_bytes(), &columns()).unwrap_err());
            assert!(problem.contains(want), "{text}: {problem}");
        }
        assert_eq!(read(b"t,n\nNULL,NULL", &columns()).unwrap()[0], *json!({"t": null, "n": null}).as_object().unwrap());
    }

    #[test]
    fn a_form_is_one_row() {
        let row = read_form(b"t=a+b%26&n=3&d=true", &columns()).unwrap().remove(0);
        assert_eq!(Json::Object(row), json!({"t": "a b&", "n": 3, "d": true}));
        assert!(read_form(b"t=a&t=b", &columns()).is_err());
    }
}
