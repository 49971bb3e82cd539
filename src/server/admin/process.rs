//! What is asked of the process as a whole: that it reads its configuration again, or gives way to
//! another one.

use std::sync::Arc;

use super::api::{Refusal, Reply, Request, allow, shown};
use super::audit::Audit;
use super::view;
use crate::server::reload::Reloader;

/// Reads the configuration again, and tells when it is in force.
pub(super) async fn reload(reloader: &Arc<Reloader>, request: &Request<'_>) -> Reply {
    let audit = Audit::new(request.peer, "reload", String::new());
    allow(request.level).map_err(|refusal| audit.refused(refusal))?;
    let reloader = Arc::clone(reloader);
    // To its end, whether whoever asks stays to hear of it or not.
    let reloading = tokio::spawn(async move { reloader.reload_and_tell().await });
    let reloaded = match reloading.await {
        Ok(reloaded) => reloaded.map_err(|error| Refusal::Failed(error.to_string())),
        Err(error) => Err(Refusal::Failed(error.to_string())),
    };
    let reloaded = reloaded.map_err(|refusal| audit.refused(refusal))?;
    audit.done("", None);
    shown(&view::Reloaded::of(&reloaded))
}

/// Starts another process in the place of this one, and tells when it serves.
pub(super) async fn upgrade(reloader: &Arc<Reloader>, request: &Request<'_>) -> Reply {
    let audit = Audit::new(request.peer, "upgrade", String::new());
    allow(request.level).map_err(|refusal| audit.refused(refusal))?;
    let upgraded = reloader.upgrade().await.map_err(Refusal::Failed);
    let process = upgraded.map_err(|refusal| audit.refused(refusal))?;
    audit.done("", None);
    shown(&view::Upgraded { process })
}
