//! tidegate runs *background updates* over SQLite and PostgreSQL: slow changes to a database, done in small batches at
//! a pace that a *controller* sets.

pub mod config;
pub mod controller;
pub mod database;
pub mod pace;
pub mod sandbox;
pub mod scheduler;
pub mod update;
