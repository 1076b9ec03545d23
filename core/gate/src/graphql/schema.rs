//! The schema of what one caller may use.

use std::sync::Arc;

use async_graphql::Value;
use async_graphql::dynamic::{
    Enum, Field, FieldFuture, FieldValue, InputObject, InputValue, Object, ResolverContext, Scalar, Schema, SchemaBuilder, SchemaError,
    Subscription, SubscriptionField, TypeRef,
};
use mobo_core::limits;
use mobo_core::query::ColumnType;
use mobo_core::rights::Action;
use mobo_core::schema::Kind;
use serde_json::Value as Json;

use super::Table;
use super::live::{self, Change};
use super::page::{self, Connection, Edge, PageInfo, Row};
use super::values::{FILTERS, filter_type, has_order, input_type, output, scalar};
use super::write::{self, Mutation, Written};

/// Roots and the types that they use, as they are gathered.
struct Making {
    builder: SchemaBuilder,
    query: Object,
    mutation: Option<Object>,
    subscription: Option<Subscription>,
}

/// The schema of these tables.
///
/// # Errors
///
/// When two names meet, which [`super::names`] rules out.
pub(super) fn make(tables: &[Arc<Table>], introspection: bool) -> Result<Schema, SchemaError> {
    let writes = tables.iter().any(|table| Mutation::ALL.into_iter().any(|mutation| table.offers(mutation)));
    let listens = tables.iter().any(|table| table.may(Action::Read));
    let mut builder = Schema::build("Query", writes.then_some("Mutation"), listens.then_some("Subscription"))
        .limit_depth(limits::GRAPHQL_DEPTH_MAX)
        .limit_complexity(limits::GRAPHQL_COMPLEXITY_MAX)
        .limit_recursive_depth(limits::GRAPHQL_RECURSION_MAX)
        .limit_directives(limits::GRAPHQL_DIRECTIVES_MAX);
    if !introspection {
        builder = builder.disable_introspection();
    }
    let query =
        Object::new("Query").description("What can be read").field(Field::new("apiVersion", TypeRef::named_nn(TypeRef::STRING), |_| {
            FieldFuture::from_value(Some(Value::from(env!("CARGO_PKG_VERSION"))))
        }));
    let mutation = writes.then(|| Object::new("Mutation").description("What can be written"));
    let subscription = listens.then(|| Subscription::new("Subscription").description("What is told as it happens"));
    let mut making = Making { builder: shared(builder), query, mutation, subscription };
    for table in tables {
        making = making.with(table);
    }
    let mut builder = making.builder.register(making.query);
    if let Some(mutation) = making.mutation {
        builder = builder.register(mutation);
    }
    if let Some(subscription) = making.subscription {
        builder = builder.register(subscription);
    }
    builder.finish()
}

fn int(name: &str, about: &str) -> InputValue {
    InputValue::new(name, TypeRef::named(TypeRef::INT)).description(about)
}

/// A field of an object that holds `T`.
fn of<T: Send + Sync + 'static>(
    name: &str,
    ty: TypeRef,
    get: impl Fn(&T) -> Option<FieldValue<'static>> + Clone + Send + Sync + 'static,
) -> Field {
    Field::new(name, ty, move |ctx: ResolverContext<'_>| match ctx.parent_value.downcast_ref::<T>() {
        Some(parent) => FieldFuture::Value(get(parent)),
        None => FieldFuture::Value(None),
    })
}

fn text(text: impl Into<String>) -> FieldValue<'static> {
    FieldValue::value(Value::String(text.into()))
}

/// Types that do not depend on collections.
fn shared(builder: SchemaBuilder) -> SchemaBuilder {
    let scalars = [
        ("BigInt", "An integer of 64 bits, as text"),
        ("Datetime", "A time such as 2026-03-01T08:00:00Z"),
        ("JSON", "JSON as text"),
        ("Opaque", "Bytes in base64"),
        ("Counter", "A number to set a counter to, or {inc: n}"),
    ];
    let mut builder = scalars.into_iter().fold(builder, |builder, (name, about)| builder.register(Scalar::new(name).description(about)));
    let words = |name: &str, words: &[&str]| words.iter().fold(Enum::new(name), |all, word| all.item(*word));
    builder = builder
        .register(words("OrderByDirection", &["AscNullsFirst", "AscNullsLast", "DescNullsFirst", "DescNullsLast"]))
        .register(words("FilterIs", &["NULL", "NOT_NULL"]))
        .register(words("ChangeType", &["INSERT", "UPDATE", "DELETE"]));
    for (name, scalar, operators) in FILTERS {
        let filter = operators.iter().fold(InputObject::new(name), |filter, operator| {
            let ty = match *operator {
                "in" => TypeRef::named_nn_list(scalar),
                "is" => TypeRef::named("FilterIs"),
                _ => TypeRef::named(scalar),
            };
            filter.field(InputValue::new(*operator, ty))
        });
        builder = builder.register(filter);
    }
    let flag = |name: &str, get: fn(&PageInfo) -> bool| {
        of::<PageInfo>(name, TypeRef::named_nn(TypeRef::BOOLEAN), move |info| Some(FieldValue::value(get(info))))
    };
    let place = |name: &str, get: fn(&PageInfo) -> &Option<String>| {
        of::<PageInfo>(name, TypeRef::named(TypeRef::STRING), move |info| get(info).clone().map(text))
    };
    builder.register(
        Object::new("PageInfo")
            .field(flag("hasNextPage", |info| info.next))
            .field(flag("hasPreviousPage", |info| info.previous))
            .field(place("startCursor", |info| &info.start))
            .field(place("endCursor", |info| &info.end)),
    )
}

impl Making {
    fn with(self, table: &Arc<Table>) -> Self {
        let reading = if table.may(Action::Read) { self.reading(table) } else { self };
        let reading = reading.responses(table);
        let reading = if table.may(Action::Read) { reading.listening(table) } else { reading };
        reading.writing(table)
    }

    /// `todosCollection`, and the types of rows and filters.
    fn reading(mut self, table: &Arc<Table>) -> Self {
        let base = &table.base;
        let name = |suffix: &str| format!("{base}{suffix}");
        let whose = Arc::clone(table);
        // A sample has no id of its own.
        let node = if table.collection.kind == Kind::Stream { Object::new(base) } else { Object::new(base).field(node_id(&whose)) };
        let node = table.columns_for(Action::Read).into_iter().fold(node, |node, (name, column)| {
            let ty = if name == "id" { TypeRef::named_nn(scalar(column.kind)) } else { TypeRef::named(scalar(column.kind)) };
            node.field(of::<Row>(&name, ty, move |row| shown(column.kind, row.get(&column.name))))
        });
        let edge = Object::new(name("Edge"))
            .field(of::<Edge>("cursor", TypeRef::named_nn(TypeRef::STRING), |edge| Some(text(edge.cursor.clone()))))
            .field(of::<Edge>("node", TypeRef::named_nn(base.clone()), |edge| Some(FieldValue::owned_any(Arc::clone(&edge.row)))));
        let connection = Object::new(name("Connection"))
            .field(of::<Connection>("edges", TypeRef::named_nn_list_nn(name("Edge")), |page| {
                Some(FieldValue::list(page.edges.iter().cloned().map(FieldValue::owned_any)))
            }))
            .field(of::<Connection>("pageInfo", TypeRef::named_nn("PageInfo"), |page| Some(FieldValue::owned_any(page.info.clone()))))
            .field(of::<Connection>("totalCount", TypeRef::named(TypeRef::INT), |page| page.total.map(FieldValue::value)));
        let itself = name("Filter");
        let mut filter = InputObject::new(&itself)
            .field(InputValue::new("and", TypeRef::named_nn_list(itself.clone())))
            .field(InputValue::new("or", TypeRef::named_nn_list(itself.clone())))
            .field(InputValue::new("not", TypeRef::named(itself.clone())));
        let mut order = InputObject::new(name("OrderBy"));
        for (name, column) in table.columns_for(Action::Read) {
            filter = filter.field(InputValue::new(&name, TypeRef::named(filter_type(column.kind))));
            if has_order(column.kind) {
                order = order.field(InputValue::new(&name, TypeRef::named("OrderByDirection")));
            }
        }
        let field =
            Field::new(format!("{}Collection", table.field), TypeRef::named_nn(name("Connection")), move |ctx| page::resolve(&whose, ctx))
                .argument(int("first", "So many rows from the beginning; 30 by default"))
                .argument(int("last", "So many rows from the end"))
                .argument(InputValue::new("before", TypeRef::named(TypeRef::STRING)))
                .argument(InputValue::new("after", TypeRef::named(TypeRef::STRING)))
                .argument(int("offset", "So many rows are passed over"))
                .argument(InputValue::new("filter", TypeRef::named(name("Filter"))))
                .argument(InputValue::new("orderBy", TypeRef::named_nn_list(name("OrderBy"))));
        self.query = self.query.field(field);
        self.builder = self.builder.register(node).register(edge).register(connection).register(filter).register(order);
        self
    }

    /// What mutations answer.
    fn responses(mut self, table: &Arc<Table>) -> Self {
        for mutation in Mutation::ALL.into_iter().filter(|mutation| table.offers(*mutation)) {
            let count =
                of::<Written>("affectedCount", TypeRef::named_nn(TypeRef::INT), |written| Some(FieldValue::value(written.count as u64)));
            let mut response = Object::new(format!("{}{}Response", table.base, mutation.word())).field(count);
            if table.may(Action::Read) {
                response = response.field(of::<Written>("records", TypeRef::named_nn_list_nn(table.base.clone()), |written| {
                    Some(FieldValue::list(written.rows.iter().cloned().map(FieldValue::owned_any)))
                }));
            }
            self.builder = self.builder.register(response);
        }
        self
    }

    /// `todosChanges`.
    fn listening(mut self, table: &Arc<Table>) -> Self {
        let base = &table.base;
        let row = |name: &str, get: fn(&Change) -> &Option<Row>| {
            of::<Change>(name, TypeRef::named(base.clone()), move |change| get(change).clone().map(FieldValue::owned_any))
        };
        let change = Object::new(format!("{base}Change"))
            .field(of::<Change>("type", TypeRef::named_nn("ChangeType"), |change| Some(text(change.kind))))
            .field(of::<Change>("at", TypeRef::named_nn("Datetime"), |change| Some(text(change.at.clone()))))
            .field(of::<Change>("position", TypeRef::named_nn(TypeRef::STRING), |change| Some(text(change.position.clone()))))
            .field(row("record", |change| &change.new))
            .field(row("oldRecord", |change| &change.old));
        let whose = Arc::clone(table);
        let field = SubscriptionField::new(format!("{}Changes", table.field), TypeRef::named_nn(format!("{base}Change")), move |ctx| {
            live::resolve(&whose, ctx)
        });
        let field = field.argument(InputValue::new("filter", TypeRef::named(format!("{base}Filter")))).argument(
            InputValue::new("after", TypeRef::named(TypeRef::STRING)).description("The position of the last change that was seen"),
        );
        self.subscription = self.subscription.map(|subscription| subscription.field(field));
        self.builder = self.builder.register(change);
        self
    }

    /// `insertIntoTodosCollection` and its like.
    fn writing(mut self, table: &Arc<Table>) -> Self {
        for mutation in Mutation::ALL.into_iter().filter(|mutation| table.offers(*mutation)) {
            let whose = Arc::clone(table);
            let response = TypeRef::named(format!("{}{}Response", table.base, mutation.word()));
            let mut field = Field::new(mutation.field(&table.base), response, move |ctx| write::resolve(&whose, mutation, ctx));
            let input = match mutation {
                Mutation::Insert => Some(("InsertInput", Action::Create)),
                Mutation::Update => Some(("UpdateInput", Action::Update)),
                Mutation::Delete => None,
            };
            if let Some((suffix, action)) = input {
                let name = format!("{}{suffix}", table.base);
                let columns = table.columns_for(action).into_iter().filter(|(name, _)| name != "id" || mutation == Mutation::Insert);
                let input = columns.fold(InputObject::new(&name), |input, (name, column)| {
                    input.field(InputValue::new(name, TypeRef::named(input_type(column.kind))))
                });
                self.builder = self.builder.register(input);
                field = match mutation {
                    Mutation::Insert => field.argument(InputValue::new("objects", TypeRef::named_nn_list_nn(name))),
                    Mutation::Update | Mutation::Delete => field.argument(InputValue::new("set", TypeRef::named_nn(name))),
                };
            }
            if mutation != Mutation::Insert {
                let most = int("atMost", "Nothing is written where more records than that are meant").default_value(1);
                field = field.argument(InputValue::new("filter", TypeRef::named(format!("{}Filter", table.base)))).argument(most);
            }
            self.mutation = self.mutation.map(|mutations| mutations.field(field));
        }
        self
    }
}

fn shown(kind: ColumnType, value: Option<&Json>) -> Option<FieldValue<'static>> {
    match value {
        None | Some(Json::Null) => None,
        Some(value) => Some(FieldValue::value(output(kind, value))),
    }
}

fn node_id(table: &Arc<Table>) -> Field {
    let whose = Arc::clone(table);
    of::<Row>("nodeId", TypeRef::named_nn(TypeRef::ID), move |row| Some(text(page::node_id(&whose, row))))
}

impl Mutation {
    pub(super) const ALL: [Self; 3] = [Self::Insert, Self::Update, Self::Delete];

    const fn word(self) -> &'static str {
        match self {
            Self::Insert => "Insert",
            Self::Update => "Update",
            Self::Delete => "Delete",
        }
    }

    fn field(self, base: &str) -> String {
        match self {
            Self::Insert => format!("insertInto{base}Collection"),
            Self::Update => format!("update{base}Collection"),
            Self::Delete => format!("deleteFrom{base}Collection"),
        }
    }
}

impl Table {
    /// Whether the schema has that mutation: filters name rows, so that who changes them reads them, too. Samples are appended elsewhere.
    fn offers(&self, mutation: Mutation) -> bool {
        let is_kept = self.collection.kind != Kind::Stream;
        is_kept
            && match mutation {
                Mutation::Insert => self.may(Action::Create),
                Mutation::Update => self.may(Action::Read) && self.columns_for(Action::Update).iter().any(|(name, _)| name != "id"),
                Mutation::Delete => self.may(Action::Delete) && self.may(Action::Read),
            }
    }
}
