//! One line of the table of routes: what it is called, what it needs, what it takes and answers.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::body::{Data, TaskBody};
use super::state::AppState;
use super::v2::tasks;
use crate::error::Code;
use crate::model::Scope;
use crate::operations::Entry;

/// Makes the schema of an answer.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// What a route reads from the body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// Nothing.
    Nothing,
    /// A job.
    Job,
    /// The arguments of an operation.
    Args(&'static Entry),
    /// An export to a storage.
    Destination,
    /// A webhook.
    Webhook,
    /// A posted form.
    Form,
}

/// One line of the table.
pub(super) struct Route {
    /// Its method.
    pub(super) method: Method,
    /// Its template.
    pub(super) path: String,
    /// What a key must be allowed; none for routes that need no key.
    pub(super) scope: Option<Scope>,
    /// It makes something, and is counted.
    pub(super) creates: bool,
    /// What it reads from the body.
    pub(super) takes: Takes,
    /// One line, and more about it; none for what the manual leaves out.
    pub(super) says: Option<(String, String)>,
    /// What it reads from the query.
    pub(super) query: &'static [&'static str],
    /// Its good answer: status, media type, shape.
    pub(super) answers: (u16, &'static str, Option<Shape>),
    /// Good answers of other kinds, without a body that has a shape.
    pub(super) also: &'static [(u16, &'static str)],
    /// Error codes that do not follow from the rest.
    pub(super) fails: &'static [Code],
    pub(super) handler: MethodRouter<AppState>,
}

impl Route {
    /// A route with a handler of any kind, which the manual leaves out.
    pub(super) fn new(method: Method, path: &str, handler: MethodRouter<AppState>) -> Self {
        Self {
            method,
            path: path.to_owned(),
            scope: None,
            creates: false,
            takes: Takes::Nothing,
            says: None,
            query: &[],
            answers: (204, "", None),
            also: &[],
            fails: &[],
            handler,
        }
    }

    /// Answers GET, and HEAD alike.
    pub(super) fn get<H: Handler<T, AppState>, T: 'static>(path: &str, handler: H) -> Self {
        Self::new(Method::GET, path, get(handler))
    }

    /// Answers POST.
    pub(super) fn post<H: Handler<T, AppState>, T: 'static>(path: &str, handler: H) -> Self {
        Self::new(Method::POST, path, post(handler))
    }

    /// Answers DELETE.
    pub(super) fn delete<H: Handler<T, AppState>, T: 'static>(path: &str, handler: H) -> Self {
        Self::new(Method::DELETE, path, delete(handler))
    }

    /// Makes tasks of an operation.
    pub(super) fn operation(path: &str, entry: &'static Entry) -> Self {
        let schema = entry.schema();
        let about = schema.get("description").and_then(|text| text.as_str()).unwrap_or_default();
        Self::post(path, async move |state, by, view, waits, entity| {
            tasks::create::handler(entry, state, by, view, waits, entity).await
        })
        .creates(Takes::Args(entry))
        .says(&format!("Creates a task: {}", entry.name), about)
        .answers::<Data<TaskBody>>(201)
        .fails(&[Code::WaitTimeout])
    }

    /// Asks for a key with that scope.
    pub(super) fn needs(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Reads this from the body.
    pub(super) fn takes(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    /// Makes something of this: needs the right to, and is counted.
    pub(super) fn creates(self, takes: Takes) -> Self {
        Self { creates: true, ..self.needs(Scope::TaskWrite).takes(takes) }
    }

    /// Stands in the manual.
    pub(super) fn says(self, summary: &str, description: &str) -> Self {
        Self { says: Some((summary.to_owned(), description.to_owned())), ..self }
    }

    /// Reads these from the query.
    pub(super) fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    /// Answers well with that status and a JSON shape.
    pub(super) fn answers<T: JsonSchema>(self, status: u16) -> Self {
        Self { answers: (status, "application/json", Some(SchemaGenerator::subschema_for::<T>)), ..self }
    }

    /// Answers well with that status and a media type; an empty one means no body.
    pub(super) fn answers_with(self, status: u16, kind: &'static str) -> Self {
        Self { answers: (status, kind, None), ..self }
    }

    /// Also answers well with these.
    pub(super) fn or(self, also: &'static [(u16, &'static str)]) -> Self {
        Self { also, ..self }
    }

    /// Also fails with these codes.
    pub(super) fn fails(self, fails: &'static [Code]) -> Self {
        Self { fails, ..self }
    }

    /// All error codes that it answers with.
    pub(super) fn codes(&self) -> Vec<Code> {
        let mut codes = Vec::new();
        if self.scope.is_some() {
            codes.extend([Code::Unauthenticated, Code::Forbidden]);
        }
        if self.path.contains('{') {
            codes.push(Code::NotFound);
        }
        if self.creates {
            codes.extend([Code::BadRequest, Code::PayloadTooLarge, Code::InvalidData, Code::TooManyRequests]);
        }
        if !self.query.is_empty() {
            codes.push(Code::BadRequest);
        }
        codes.extend(self.fails);
        codes.extend([Code::Internal, Code::Unavailable]);
        codes.sort_by_key(|code| (code.status(), code.wire()));
        codes.dedup();
        codes
    }
}
