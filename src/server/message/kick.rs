//! `kick`: an operator ends connections of others, if the server lets them.

use super::info::reply_to;
use super::service::{Call, Service};
use crate::wire::message::{LockResult, Status, parse_kick};

pub(super) fn add_to(service: &mut Service) {
    service.on("kick", kick);
}

fn kick(call: &mut Call<'_, '_>) {
    if !call.connection.base.config.kick {
        return call.reply(&LockResult::refused(
            "kicking is disabled on this server: it was started without --allow-kick",
        ));
    }
    reply_to(call, parse_kick, |call, request| {
        let kicked = call.connection.base.server.kick(|info| match (&request.address, &request.name) {
            (Some(address), _) => info.address() == address,
            (None, Some(name)) => info.name().is_some_and(|known| *known == *name.as_bytes()),
            (None, None) => false,
        });
        let by = call.session().info();
        for info in &kicked {
            // Debug, since names are the clients' own words.
            log::warn!(
                "{} ({:?}) is kicked by {} ({:?})",
                info.address(),
                info.label(),
                by.address(),
                by.label()
            );
        }
        LockResult::new(if kicked.is_empty() { Status::NotFound } else { Status::Ok })
    });
}
