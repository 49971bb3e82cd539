//! The command line, familiar to hands that know nginx and HAProxy.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

mod client;
mod errors;
mod sessions;
mod table;
mod top;
mod verbs;
mod version;
mod whom;

use crate::config::{self, Config, Level, MessageFormat};
use crate::server::{self, demo};

#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    disable_version_flag = true,
    about,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
    /// Ask it of the running process, as the command of that name does.
    #[arg(short, long, value_name = "SIGNAL", value_enum, conflicts_with_all = ["test", "dump"])]
    signal: Option<verbs::Signal>,
    /// With -s: the admin socket of the process.
    #[arg(long, value_name = "PATH", requires = "signal")]
    socket: Option<PathBuf>,
    /// Print the JSON Schema of the configuration and exit.
    #[arg(long)]
    print_schema: bool,
    /// Print the version and exit.
    #[arg(short = 'v', long)]
    version: bool,
    /// Print the version with how it was built and exit.
    #[arg(short = 'V', long)]
    build_info: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration file, or a directory of which all files `*.yaml` are read.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit: 0 if it is good, 1 if not.
    #[arg(short, long)]
    test: bool,
    /// Check it, print it as it is understood, with all defaults, and exit.
    #[arg(short = 'T', long)]
    dump: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run in the foreground (the same as giving only -c FILE).
    Run(Run),
    /// Run in front of three built-in demo MCP servers, without a file.
    Demo,
    #[command(flatten)]
    Operate(verbs::Verb),
}

/// What the command line may be, for the manual page.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_schema {
        return print(&config::schema());
    }
    if arguments.version {
        return print(&version::short());
    }
    if arguments.build_info {
        return print(&version::long());
    }
    if let Some(signal) = arguments.signal {
        return verbs::signal(signal, arguments.run.config, arguments.socket);
    }
    match arguments.command {
        None => with_file(&arguments.run),
        Some(Command::Run(run)) => with_file(&run),
        Some(Command::Demo) => demo(),
        Some(Command::Operate(verb)) => verbs::run(&verb),
    }
}

fn with_file(run: &Run) -> ExitCode {
    let Some(path) = &run.config else {
        complain("no configuration: give -c FILE, or try `tidegate demo`");
        return ExitCode::from(2);
    };
    let config = match config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            complain(&problems.to_string());
            return ExitCode::FAILURE;
        }
    };
    for warning in &config.warnings {
        complain(&warning.to_string());
    }
    if run.test || run.dump {
        complain(&format!("{}: the configuration is good", path.display()));
        return match run.dump {
            true => print(config.to_text().trim_end()),
            false => ExitCode::SUCCESS,
        };
    }
    serve(config, path)
}

fn serve(config: Config, path: &Path) -> ExitCode {
    server::start_log(config.log.level, config.log.format);
    let addresses: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| listener.bind.to_string())
        .collect();
    let hello = || {
        log::info!(
            "tidegate {} serves {} on {}",
            env!("CARGO_PKG_VERSION"),
            path.display(),
            addresses.join(", ")
        )
    };
    exit(server::run(config, path, hello))
}

fn demo() -> ExitCode {
    server::start_log(Level::Warn, MessageFormat::Text);
    let result = demo::run(|copies| {
        print(&demo_text(copies));
    });
    match result {
        Ok(()) => {
            print("bye");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("tidegate: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What the demo says: where things are, and what to try.
fn demo_text(copies: &[(String, SocketAddr)]) -> String {
    let copies: String = copies
        .iter()
        .map(|(name, address)| format!("    {name}  http://{address}/mcp\n"))
        .collect();
    include_str!("demo.txt")
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{copies}", &copies)
        .replace("{address}", demo::ADDRESS)
        .replace("{admin}", demo::ADMIN_ADDRESS)
}

fn exit(result: Result<(), server::StartError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("tidegate: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn complain(text: &str) {
    // If standard error is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
