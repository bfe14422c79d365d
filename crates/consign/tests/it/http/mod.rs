//! The whole router in this process, on SQLite and a folder.

mod app;
mod auth_and_errors;
mod creations;
mod destinations;
mod downloads;
mod events;
mod lists;
mod logs;
mod operations;
mod pages;
mod shapes;
mod signed;
mod socketio;
mod sockets;
mod tasks;
mod uploads;
mod waits;
mod webhooks;
