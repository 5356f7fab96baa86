//! The command `resume`, by which a client continues its session on a new connection.

use std::sync::atomic::Ordering::Acquire;

use serde_json::value::RawValue;

use super::super::connection::Flow;
use super::service::Call;
use super::sessions::{greeting, keepalive_of, set_socket_keepalive};
use crate::os::Keepalive;
use crate::server::resume::continuing::{Continued, NewConnection, OVER};
use crate::wire::message::{LockResult, Status, parse_resume};

pub(super) fn resume(call: &mut Call<'_, '_>) {
    let request = match parse_resume(call.parameters().unwrap_or(RawValue::NULL)) {
        Ok(request) => request,
        Err(malformed) => return refuse_for_good(call, &LockResult::from(malformed)),
    };
    let base = &mut *call.connection.base;
    if !base.is_unused() {
        let reason = Some("resume must be the first message of a connection".to_owned());
        return call.reply(&LockResult { reason, ..LockResult::new(Status::Invalid) });
    }
    if base.server.stopping.load(Acquire) || base.server.broker.is_shut() {
        // Its time is not over: it may come back at the next run.
        call.connection.next = Flow::Close;
        return call.reply(&LockResult::stopping());
    }
    let address = base.session.info().address();
    let continued = NewConnection {
        id: base.id(),
        address: &address,
        send_queue: &base.send_queue,
        session: &base.session,
        observer: call.connection.waits.clone(),
        server: &base.server,
    }
    .continue_session(&request);
    let (waits, wind_down) = (call.connection.waits.clone(), request.hello.wind_down);
    let server = base.server.clone();
    let keepalive = keepalive_of(base);
    // Only of a session whose secret has been verified: otherwise it may be any number.
    let told = || Keepalive::server_after_hello(request.dead_peer_timeout);
    match continued {
        Continued::Resumed(resumable, session) => {
            let locks = session.info().locks_held();
            base.continue_session((resumable, session), waits, [&told(), &keepalive], wind_down);
            if !set_socket_keepalive(call, &keepalive) {
                return;
            }
            let greeting = greeting(call, keepalive);
            call.reply(&greeting);
            call.connection.next = Flow::Again;
            server.resumable.count(true);
            server
                .resumed
                .info(locks as u64, || format!("{address} has resumed its session; locks it holds: {locks}"));
        }
        Continued::Over(resumable, session) => {
            base.continue_session((resumable, session), waits, [&told(), &keepalive], wind_down);
            if set_socket_keepalive(call, &keepalive) {
                tell_ended(call, OVER);
            }
        }
        Continued::Ended(reason) => tell_ended(call, reason),
        Continued::Superseded => {
            base.send_queue.reset();
            call.connection.next = Flow::Close;
        }
    }
}

fn tell_ended(call: &mut Call<'_, '_>, reason: &str) {
    let server = &call.connection.base.server;
    server.resumable.count(false);
    let address = call.session().info().address();
    server.resume_refused.warn(|| format!("{address} cannot resume its session: {reason}"));
    refuse_for_good(call, &LockResult { reason: Some(reason.to_owned()), ..LockResult::new(Status::Ended) });
}

/// Replies, and closes the connection.
fn refuse_for_good(call: &mut Call<'_, '_>, result: &LockResult) {
    call.reply(result);
    call.connection.next = Flow::Close;
}
