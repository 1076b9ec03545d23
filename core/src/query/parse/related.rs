//! Related collections in a query: what the select list embeds, and filters and orders that speak of it.

use super::scan::{cut, split, unquote};
use super::{Parser, QueryError, Reason};
use crate::limits;
use crate::query::{Embedded, Operand, Presence, Related};

impl Parser<'_> {
    /// `...alias:name!hint!inner` in front of the list in parentheses.
    pub(super) fn related(&mut self, item: &str, list: &str) -> Result<(), QueryError> {
        let head = cut(item, "(").map_or(item, |(head, _)| head);
        let (spread, head) = head.strip_prefix("...").map_or((false, head), |head| (true, head));
        let (alias, head) = cut(head, ":").map_or((None, head), |(alias, head)| (Some(alias), head));
        let mut words = split(head, '!')?.into_iter();
        let name = unquote(words.next().unwrap_or_default())?;
        let (mut presence, mut hint) = (Presence::Any, None);
        for word in words {
            match word {
                "inner" => presence = Presence::Some,
                "left" => presence = Presence::Any,
                word => hint = Some(unquote(word)?),
            }
        }
        let alias = alias.map(unquote).transpose()?.unwrap_or_else(|| name.clone());
        let plain = !alias.is_empty() && alias.len() <= limits::NAME_BYTES_MAX && !alias.chars().any(char::is_control);
        if !plain || alias.starts_with("mobo") {
            let max = limits::NAME_BYTES_MAX;
            return Err(QueryError::malformed(format!(
                "select={item}: an alias is 1 to {max} bytes of text, and does not start with mobo"
            )));
        }
        self.embeds += 1;
        if self.embeds > limits::EMBEDS_MAX || self.level == limits::EMBED_DEPTH_MAX {
            let (most, deep) = (limits::EMBEDS_MAX, limits::EMBED_DEPTH_MAX);
            return Err(QueryError::malformed(format!("a query embeds at most {most} related collections, {deep} deep")));
        }
        let related = self.way(&name, hint.as_deref())?;
        if spread && !related.to_one {
            return Err(QueryError::not_implemented(&format!("the spread of a list, which ...{name} is")));
        }
        if self.query.embeds.iter().any(|other| other.alias == alias) {
            return Err(QueryError::malformed(format!("select gives two members the name \"{alias}\"")));
        }
        self.query.embeds.push(Embedded { alias, name, related, presence, spread, query: super::Query::default() });
        let last = self.query.embeds.len() - 1;
        self.on(last, |inner| {
            // `name()` joins, and shows nothing.
            inner.query.select = Some(if list.is_empty() { Vec::new() } else { inner.select(list)? });
            Ok(())
        })
    }

    /// The one way that a name, and a hint where there is one, lead.
    fn way(&self, name: &str, hint: Option<&str>) -> Result<Related, QueryError> {
        let Some((near, relations)) = self.relations else {
            return Err(QueryError::not_implemented("related collections in select"));
        };
        let mut ways = relations.from(near, name);
        if let Some(hint) = hint {
            ways.retain(|way| way.field.name == hint);
            // From a collection to itself, the reference as a name is the way to the one, and as a hint the way to the many.
            if ways.len() > 1 {
                ways.retain(|way| !way.to_one);
            }
        } else if ways.iter().any(|way| way.to_one && way.field.name == name) {
            ways.retain(|way| way.to_one && way.field.name == name);
        }
        match <[Related; 1]>::try_from(ways) {
            Ok([way]) => Ok(way),
            Err(ways) if ways.is_empty() => {
                let message = format!("Could not find a relationship between '{}' and '{name}'", self.table);
                Err(QueryError::new(Reason::NoRelation, message)
                    .hint("a field that was declared as NAME:ref:COLLECTION is one, and so is the way back"))
            }
            Err(ways) => {
                let message = format!("Could not embed because more than one relationship was found for '{}' and '{name}'", self.table);
                let hints: Vec<String> = ways.iter().map(|way| format!("{name}!{}", way.field.name)).collect();
                Err(QueryError::new(Reason::Ambiguous, message).hint(format!("write one of {}", hints.join(", "))))
            }
        }
    }

    /// `name.rest=text`, where `name` is what the select list embeds; `whole` is for messages.
    pub(super) fn within(&mut self, (whole, name): (&str, &str), rest: &str, text: &str) -> Result<(), QueryError> {
        let Some(at) = self.embedded(&unquote(name)?) else {
            if self.relations.is_none() {
                return Err(QueryError::not_implemented(&format!("related collections, which \"{whole}\" speaks of")));
            }
            return Err(not_embedded(name));
        };
        if ["select", "columns", "on_conflict", "after"].contains(&rest) {
            return Err(QueryError::malformed(format!("{whole}: a related collection takes filters, order, limit and offset")));
        }
        self.on(at, |inner| inner.parameter(rest, text))
    }

    /// Takes `name=is.null` and `name=not.is.null` of what the select list embeds; false where it embeds no such name.
    pub(super) fn require_related(&mut self, name: &str, text: &str) -> Result<bool, QueryError> {
        let Some(at) = self.embedded(&unquote(name)?) else { return Ok(false) };
        let presence = match text {
            "is.null" | "not.is.not_null" => Presence::None,
            "not.is.null" | "is.not_null" => Presence::Some,
            _ => {
                let message = format!("{name}={text}: a related collection is there or not: {name}=is.null, {name}=not.is.null");
                return Err(QueryError::malformed(message).hint(format!("a filter on its rows is {name}.column=eq.value")));
            }
        };
        if let Some(embedded) = self.query.embeds.get_mut(at) {
            embedded.presence = presence;
        }
        Ok(true)
    }

    /// A term of an order: a column, or `name(column)` of the one record that the select list embeds.
    pub(super) fn ordered_by(&self, term: &str) -> Result<(Option<usize>, Operand), QueryError> {
        let Some((name, column)) = cut(term, "(").and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?))) else {
            return Ok((None, self.operand(term)?));
        };
        let Some(at) = self.embedded(&unquote(name)?) else {
            return Err(if self.relations.is_none() {
                QueryError::not_implemented("an order by related collections")
            } else {
                not_embedded(name)
            });
        };
        let Some(Embedded { related, .. }) = self.query.embeds.get(at) else { return Err(not_embedded(name)) };
        if !related.to_one {
            let message = format!("A related order on '{name}' is not possible: there may be several of it for one row");
            return Err(QueryError::new(Reason::RelatedOrder, message).hint(format!("sort the list itself with {name}.order={column}")));
        }
        let far = Parser::new(&related.collection.name, &related.columns);
        Ok((Some(at), far.operand(column)?))
    }

    fn embedded(&self, name: &str) -> Option<usize> {
        let embeds = &self.query.embeds;
        embeds.iter().position(|embedded| embedded.alias == name).or_else(|| embeds.iter().position(|embedded| embedded.name == name))
    }

    /// Goes on in what is embedded at that place, with the same limits for all of the query.
    fn on(&mut self, at: usize, go_on: impl FnOnce(&mut Parser<'_>) -> Result<(), QueryError>) -> Result<(), QueryError> {
        let Some(embedded) = self.query.embeds.get_mut(at) else { return Ok(()) };
        let related = embedded.related.clone();
        let mut inner = Parser {
            table: &related.collection.name,
            columns: &related.columns,
            variables: self.variables,
            relations: self.relations.map(|(_, relations)| (&*related.collection, relations)),
            query: std::mem::take(&mut embedded.query),
            conditions: self.conditions,
            values: self.values,
            depth: 0,
            embeds: self.embeds,
            level: self.level + 1,
        };
        let done = go_on(&mut inner);
        (self.conditions, self.values, self.embeds) = (inner.conditions, inner.values, inner.embeds);
        embedded.query = inner.query;
        done
    }
}

fn not_embedded(name: &str) -> QueryError {
    QueryError::new(Reason::NotEmbedded, format!("'{name}' is not an embedded resource in this request"))
        .hint(format!("select it: select=*,{name}(*)"))
}
