//! Listing sessions, and ending many of them.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Client, Error, escape};
use super::table;
use super::verbs::{misused, shown};
use super::whom::To;
use crate::server::admin::view::{Cleared, Sessions as Page};

/// Sessions asked for at once.
const PAGE_MAX: usize = 1000;

/// `tidegate sessions`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Sessions {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    which: Which,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// End all sessions of a pool or of an endpoint, here and on their servers.
    Clear {
        #[command(flatten)]
        to: To,
        #[command(flatten)]
        which: Which,
        /// All there are.
        #[arg(long, conflicts_with_all = ["pool", "endpoint"])]
        all: bool,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Those of this pool.
    #[arg(long)]
    pool: Option<String>,
    /// Those of endpoints of this name.
    #[arg(long)]
    endpoint: Option<String>,
}

impl Which {
    /// As pairs of a query.
    fn pairs(&self) -> Vec<String> {
        let named = [("pool", &self.pool), ("endpoint", &self.endpoint)];
        let pair = |(name, value): (&str, &Option<String>)| {
            value
                .as_ref()
                .map(|value| format!("{name}={}", escape(value)))
        };
        named.into_iter().filter_map(pair).collect()
    }
}

impl Sessions {
    /// Does what was asked.
    pub(super) fn run(&self) -> ExitCode {
        match &self.verb {
            None => {
                let to = &self.to;
                let which = self.which.pairs();
                to.with(|client| list(client, to.json, &which, self.limit as usize))
            }
            Some(Verb::Clear { to, which, all }) => {
                let mut which = which.pairs();
                if *all {
                    which.push("all=true".to_owned());
                }
                if which.is_empty() {
                    return misused("say which: --pool, --endpoint or both; or --all");
                }
                to.with(|client| clear(client, to.json, &which.join("&")))
            }
        }
    }
}

fn clear(client: &Client, as_json: bool, query: &str) -> Result<ExitCode, Error> {
    let answer = client.ask("DELETE", &format!("/v1/sessions?{query}"), None)?;
    let Cleared { ended } = client.read(answer.clone())?;
    Ok(shown(as_json, &answer, || match ended {
        1 => "1 session is ended".to_owned(),
        ended => format!("{ended} sessions are ended"),
    }))
}

fn list(client: &Client, as_json: bool, which: &[String], limit: usize) -> Result<ExitCode, Error> {
    let mut all: Option<Page> = None;
    let mut after = String::new();
    loop {
        let had = all.as_ref().map_or(0, |all| all.sessions.len());
        let mut path = format!(
            "/v1/sessions?limit={}{after}",
            (limit - had).clamp(1, PAGE_MAX)
        );
        for pair in which {
            path.push_str(&format!("&{pair}"));
        }
        let page: Page = client.get(&path)?;
        let next = page.next.clone();
        let so_far = match &mut all {
            None => all.insert(page),
            Some(all) => {
                all.sessions.extend(page.sessions);
                all.next = page.next;
                all
            }
        };
        match next.filter(|_| so_far.sessions.len() < limit) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let Some(all) = all else {
        return Ok(ExitCode::SUCCESS);
    };
    Ok(shown(as_json, &json!(all), || {
        let mut text = table::sessions(&all.sessions);
        if all.next.is_some() {
            text.push_str(&format!(
                "the first {} of those that were asked for, {} in all; --limit shows more\n",
                all.sessions.len(),
                all.total
            ));
        }
        text
    }))
}
