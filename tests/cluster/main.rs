//! Several servers as one cluster, and the client of etcd that they use. With real etcd servers,
//! which are stopped and killed.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

#[path = "../transports/authority.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod authority;
#[path = "../http/chromium.rs"]
mod chromium;
#[path = "../http/client.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod client;
#[path = "../transports/clients.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod clients;
mod commands;
mod etcd;
mod etcd_access;
mod etcd_client;
mod etcd_gone;
mod etcd_keys;
mod example;
mod holding;
mod proxy;
mod servers;
mod standby;
mod status;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod take_over;
mod text_clients;
#[path = "../cli/tool.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod tool;
