//! mobo: the one binary for people. It carries both roles, and the demo.
//!
//! `mobo hub VERB` is `mobo-hub VERB`, `mobo edge VERB` is `mobo-edge VERB`, and the hub's verbs work without `hub`, as in `mobo status`.

mod demo;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

/// Devices that keep working when the cloud is away, and a hub where everything meets again.
#[derive(Debug, Parser)]
#[command(name = "mobo", version, about, max_term_width = 120, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

const AFTER_HELP: &str = "\
The hub's commands work without `hub`, too:
  mobo boot                              run a hub here, with SQLite in ./mobo-hub
  mobo status                            how it is
  mobo collection create work_orders title:text hours:counter
  mobo device invite --name pump-7       a token for one device
  mobo edge join TOKEN                   on the device, then: mobo edge boot

New here? `mobo demo` shows in under a minute what this is for.";

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Run or ask a hub: what merges the devices' writes and serves them.
    Hub(mobo_hub::cli::Cli),
    /// Run or ask a device: what keeps working without the hub.
    Edge(mobo_edge::cli::Cli),
    /// Watch it work: a hub and two devices are cut apart, written to, killed and healed, and a judge counts.
    Demo(demo::Args),
    /// The demo's judge.
    #[command(hide = true)]
    DemoJudge(demo::JudgeArgs),
}

fn main() -> ExitCode {
    match Cli::parse_from(with_role(std::env::args_os().collect())).role {
        Role::Hub(cli) => mobo_hub::cli::run(cli),
        Role::Edge(cli) => mobo_edge::cli::run(cli),
        Role::Demo(args) => demo::run(&args),
        Role::DemoJudge(args) => demo::judge(&args),
    }
}

/// Puts `hub` before a verb that is not this binary's own.
fn with_role(mut args: Vec<OsString>) -> Vec<OsString> {
    const OWN: [&str; 8] = ["hub", "edge", "demo", "demo-judge", "-h", "--help", "-V", "--version"];
    let is_own = |arg: Option<&OsString>| arg.is_none_or(|arg| OWN.iter().any(|own| arg == own));
    let helps = args.get(1).is_some_and(|arg| arg == "help");
    if !is_own(args.get(1 + usize::from(helps))) {
        args.insert(1, "hub".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_hub_is_meant_where_no_role_is_named() {
        let cases = [
            ("mobo", "mobo"),
            ("mobo --help", "mobo --help"),
            ("mobo help", "mobo help"),
            ("mobo help demo", "mobo help demo"),
            ("mobo help device", "mobo hub help device"),
            ("mobo status", "mobo hub status"),
            ("mobo --data-dir x status", "mobo hub --data-dir x status"),
            ("mobo hub status", "mobo hub status"),
            ("mobo edge put a b {}", "mobo edge put a b {}"),
            ("mobo demo --json", "mobo demo --json"),
        ];
        for (given, want) in cases {
            let args = with_role(given.split(' ').map(OsString::from).collect());
            assert_eq!(args, want.split(' ').map(OsString::from).collect::<Vec<_>>(), "{given}");
        }
    }

    #[test]
    fn both_roles_keep_their_own_options() {
        Cli::command().debug_assert();
        let parsed = |line: &str| Cli::try_parse_from(with_role(line.split(' ').map(OsString::from).collect())).map(|cli| cli.role);
        match parsed("mobo device invite --name p --data-dir x") {
            Ok(Role::Hub(cli)) => assert_eq!(cli.common.data_dir, std::path::Path::new("x")),
            other => panic!("{other:?}"),
        }
        match parsed("mobo edge --set a=b boot") {
            Ok(Role::Edge(cli)) => {
                assert_eq!((cli.common.set.as_slice(), cli.common.data_dir.ends_with("mobo-edge")), (["a=b".to_owned()].as_slice(), true))
            }
            other => panic!("{other:?}"),
        }
        assert!(parsed("mobo nonsense").is_err());
    }
}
