//! The connectors against real servers.

mod sftp;
