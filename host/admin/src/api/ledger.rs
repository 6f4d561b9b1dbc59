//! What was done, by whom and when; and whether updates are done.

use axum::{Json, extract};
use serde::Deserialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::caller::Viewer;
use super::extract::{AtDatabase, DatabasePath, Query, name, site};
use super::problem::{Kind, Problem, Searching};
use super::view::{Ledger, Required, RequiredUpdate};
use crate::State;
use tidegate::scheduler::ledger::{Wanted, completion};

/// Entries on a page at most.
const MOST_ENTRIES: u32 = 1_000;
/// What no update's name has in it: PostgreSQL knows no NUL.
const NO_NUL: &str = r"^[^\x00]+$";
/// Updates that one asks for at once at most.
const MOST_NAMES: usize = 100;

/// Which entries are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Of this update alone.
    #[param(min_length = 1, max_length = 500, pattern = r"^[^\x00]+$")]
    update: Option<String>,
    /// Older than the entry of this number: `next_before` of the page before.
    before: Option<i64>,
    /// Entries at most.
    #[serde(default = "some_entries")]
    #[param(minimum = 1, maximum = 1_000, default = 100, example = 100)]
    limit: u32,
}

fn some_entries() -> u32 {
    100
}

/// What was done to updates, by whom and when
///
/// The newest first. Asks the database.
#[utoipa::path(
    get,
    path = "/databases/{database}/ledger",
    tag = "updates",
    params(DatabasePath, Page),
    responses((status = 200, description = "A page of the ledger.", body = Ledger), Searching)
)]
pub(super) async fn ledger(
    _: Viewer,
    AtDatabase(site): AtDatabase,
    Query(Page { update, before, limit }): Query<Page>,
) -> Result<Json<Ledger>, Problem> {
    if !(1..=MOST_ENTRIES).contains(&limit) {
        let wrong = format!("\"limit\" is {limit}, and is to be from 1 to {MOST_ENTRIES}");
        return Err(Problem::new(Kind::BadQuery, wrong));
    }
    update.iter().try_for_each(|update| wanted_name(update))?;
    let wanted = Wanted { update_name: update.as_deref(), before, presence: false };
    let entries = site.database.ledger(&wanted, limit + 1).await;
    let entries = entries.map_err(|error| Problem::database(&site.name, &error))?;
    Ok(Json(Ledger::page(entries, limit.try_into().unwrap_or(usize::MAX))))
}

fn wanted_name(update: &str) -> Result<(), Problem> {
    name("update", update).map_err(|wrong| Problem::new(Kind::BadQuery, wrong.detail))
}

/// The name of an update.
struct UpdateName;

impl PartialSchema for UpdateName {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(500))
            .pattern(Some(NO_NUL))
            .into()
    }
}

impl ToSchema for UpdateName {}

/// What is required.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a name may come several times, so that the pairs are read as they come")]
pub(super) struct Names {
    /// The updates, each as a parameter of its own.
    #[param(inline, value_type = Vec<UpdateName>, style = Form, explode, min_items = 1, max_items = 100,
            example = json!(["messages_search_body"]))]
    name: Vec<String>,
    /// On this database alone.
    database: Option<String>,
}

/// Whether updates are done
///
/// For an application that needs them. Asks the databases.
#[utoipa::path(
    get,
    path = "/require",
    tag = "updates",
    params(Names),
    responses((status = 200, description = "How they stand.", body = Required), Searching)
)]
pub(super) async fn require(
    _: Viewer,
    Query(pairs): Query<Vec<(String, String)>>,
    extract::State(state): extract::State<State>,
) -> Result<Json<Required>, Problem> {
    let wrong = |wrong: String| Err(Problem::new(Kind::BadQuery, wrong));
    let (mut names, mut database) = (Vec::new(), None);
    for (key, value) in pairs {
        match key.as_str() {
            "name" => names.push(value),
            "database" if database.is_none() => database = Some(value),
            "database" => return wrong("\"database\" is there twice".to_owned()),
            _ => return wrong(format!("there is no parameter {key:?}: \"name\" and \"database\" are")),
        }
    }
    if names.is_empty() || names.len() > MOST_NAMES {
        return wrong(format!("\"name\" is there {} times, and is to be there 1 to {MOST_NAMES} times", names.len()));
    }
    names.iter().try_for_each(|update| wanted_name(update))?;
    let sites = match &database {
        Some(name) => std::slice::from_ref(site(&state, name)?),
        None => state.sites(),
    };
    let live = state.live();
    let mut updates = Vec::new();
    for update in &names {
        let before = updates.len();
        for site in sites {
            let is_defined = live.handlers.get(&site.name).is_some_and(|handlers| handlers.contains_key(update));
            let report = completion(&*site.database, update).await;
            let report = report.map_err(|error| Problem::database(&site.name, &error))?;
            updates.extend(RequiredUpdate::of(update, &site.name, report, is_defined));
        }
        if updates.len() == before {
            updates.push(RequiredUpdate::unknown(update));
        }
    }
    Ok(Json(Required::of(updates)))
}
