//! What is asked of the process as a whole: that it reads its configuration again, opens its logs anew,
//! gives way to another one, or leaves.

use std::process;
use std::sync::Arc;

use super::api::{Refusal, Reply, Request, allow, shown};
use super::audit::Audit;
use super::view;
use crate::server::reload::Reloader;
use crate::server::wish::Haste;

/// What can be asked of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Read the configuration again.
    Reload,
    /// Open the files of logs anew.
    Reopen,
    /// Start another process in its place.
    Upgrade,
    /// Drain and leave.
    Quit,
    /// Leave at once.
    Stop,
}

impl Deed {
    const ALL: [Self; 5] = [
        Self::Reload,
        Self::Reopen,
        Self::Upgrade,
        Self::Quit,
        Self::Stop,
    ];

    /// The deed with this word, which is its path.
    pub(super) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|deed| deed.label() == word)
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Reopen => "reopen",
            Self::Upgrade => "upgrade",
            Self::Quit => "quit",
            Self::Stop => "stop",
        }
    }
}

/// Has it done, and tells when it is: when the configuration is in force, the logs are open, the other
/// process serves, or this one begins to leave.
pub(super) async fn act(reloader: &Arc<Reloader>, request: &Request<'_>, deed: Deed) -> Reply {
    let audit = Audit::new(request.peer, deed.label(), String::new());
    allow(request.level).map_err(|refusal| audit.refused(refusal))?;
    let process = process::id();
    let done = match deed {
        Deed::Reload => reload(reloader).await,
        Deed::Reopen => {
            let reopened = reloader.reopen().await;
            reopened.map(|()| shown(&view::Reopened { process }))
        }
        Deed::Upgrade => {
            let upgraded = reloader.upgrade().await;
            upgraded.map(|process| shown(&view::Upgraded { process }))
        }
        Deed::Quit | Deed::Stop => {
            let haste = match deed {
                Deed::Stop => Haste::Now,
                _ => Haste::Drain,
            };
            let leaves = reloader.leave(haste).await;
            leaves.map(|()| shown(&view::Leaving { process }))
        }
    };
    let reply = done.map_err(|why| audit.refused(Refusal::Failed(why)))?;
    audit.done("", None);
    reply
}

async fn reload(reloader: &Arc<Reloader>) -> Result<Reply, String> {
    let reloader = Arc::clone(reloader);
    // To its end, whether whoever asks stays to hear of it or not.
    let reloading = tokio::spawn(async move { reloader.reload_and_tell().await });
    let reloaded = reloading.await.map_err(|error| error.to_string())?;
    let reloaded = reloaded.map_err(|error| error.to_string())?;
    Ok(shown(&view::Reloaded::of(&reloaded)))
}
