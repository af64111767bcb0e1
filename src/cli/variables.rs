//! Variables of the environment as options: `CKPTFS_DTYPE` stands for `--dtype`, unless the command line says otherwise.
//!
//! Every option has one, of a name that follows from its own, save those of [`WITHOUT`].

use std::collections::HashSet;
use std::ffi::OsString;

use clap::builder::{BoolishValueParser, OsStringValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id, Parser};

/// Options without a variable: the deeds of one call, consent to one save, options that mean something beside another one alone, and
/// two whose variables have rules of their own.
const WITHOUT: [&str; 14] = [
    "accept-save",
    "all",
    "config-from",
    "daemon",
    "debug",
    "dry-run",
    "foreground",
    "html",
    "lazy",
    "log-file",
    "socket",
    "tensor",
    "token",
    "weights",
];

/// A command whose options are part of what it is asked, and which takes them from the command line alone.
const PLAIN: &str = "mapping";

/// Parses a command line that the environment completes.
pub fn parse<P: Parser>(words: &[OsString]) -> Result<P, clap::Error> {
    let given = unparsed(P::command().ignore_errors(true));
    let given = given.try_get_matches_from(words).ok();
    let mut command = completed(P::command(), given.as_ref());
    let parsed = command.try_get_matches_from_mut(words);
    let parsed = parsed.and_then(|matches| P::from_arg_matches(&matches));
    parsed.map_err(|error| named(error.format(&mut command), &command, given.as_ref()))
}

/// The command with the variables of its options, but for those that the words which were `given` contradict.
pub fn completed(command: Command, given: Option<&ArgMatches>) -> Command {
    let contradicted = contradicted(&command, given);
    let chosen = given.and_then(ArgMatches::subcommand);
    let command = command.mut_args(|arg| match variable(&arg) {
        Some(name) if !contradicted.contains(arg.get_id()) && !is_empty(&name) => {
            reading(arg, name)
        }
        _ => arg,
    });
    command.mut_subcommands(|inner| {
        let chosen = chosen.filter(|(name, _)| *name == inner.get_name());
        match inner.get_name() {
            PLAIN => inner,
            _ => completed(inner, chosen.map(|(_, given)| given)),
        }
    })
}

/// The command with values that are words: it tells which options are given, and looks at no path that they name.
fn unparsed(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action().takes_values() {
        true => arg.value_parser(OsStringValueParser::new()),
        false => arg,
    });
    command.mut_subcommands(unparsed)
}

/// The name of an option's variable.
fn variable(arg: &Arg) -> Option<String> {
    let long = arg.get_long().filter(|long| !WITHOUT.contains(long))?;
    Some(format!("CKPTFS_{}", long.replace('-', "_").to_uppercase()))
}

/// Whether a variable is set to nothing, which counts as one that is not set.
fn is_empty(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// The option that takes its value from a variable. Its help does not repeat that: all have one.
fn reading(arg: Arg, name: String) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    };
    arg.env(name).hide_env(true)
}

/// The options that contradict one of the command line.
fn contradicted(command: &Command, given: Option<&ArgMatches>) -> HashSet<Id> {
    let mut found = HashSet::new();
    for arg in command.get_arguments() {
        for other in command.get_arg_conflicts_with(arg) {
            let sides = [(arg, other), (other, arg)].into_iter();
            let against = sides.filter(|(arg, _)| is_given(arg, given));
            found.extend(against.map(|(_, contradicted)| contradicted.get_id().clone()));
        }
    }
    found
}

fn is_given(arg: &Arg, given: Option<&ArgMatches>) -> bool {
    let source = given.and_then(|given| given.value_source(arg.get_id().as_str()));
    source == Some(ValueSource::CommandLine)
}

/// The error, which tells of a wrong value in a variable by the variable's name.
fn named(mut error: clap::Error, command: &Command, given: Option<&ArgMatches>) -> clap::Error {
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return error;
    }
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let inner = given.and_then(ArgMatches::subcommand_name);
    let inner = inner.and_then(|name| command.find_subcommand(name));
    let given = given.map(|given| given.subcommand().map_or(given, |(_, inner)| inner));
    let args = inner.unwrap_or(command).get_arguments();
    let variable = args
        .filter(|arg| arg.to_string() == *wrong && !is_given(arg, given))
        .filter_map(Arg::get_env)
        .find(|name| std::env::var_os(name).is_some());
    if let Some(name) = variable.map(|name| name.to_string_lossy().into_owned()) {
        error.insert(ContextKind::InvalidArg, ContextValue::String(name));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::CommandLine;
    use clap::CommandFactory;

    /// The options of a command and those below it, each with the name of its command.
    fn options(command: &Command) -> Vec<(String, Arg)> {
        let name = command.get_name().to_owned();
        let own = command.get_arguments().cloned();
        let own = own.filter(|arg| arg.get_long().is_some());
        let below = command.get_subcommands().flat_map(options);
        own.map(|arg| (name.clone(), arg)).chain(below).collect()
    }

    #[test]
    fn every_option_has_a_variable_or_is_an_exception() {
        let plain = ["check"];
        for (command, option) in options(&completed(CommandLine::command(), None)) {
            let long = option.get_long().unwrap();
            let expected = format!("CKPTFS_{}", long.to_uppercase().replace('-', "_"));
            let env = option.get_env().map(|name| name.to_str().unwrap());
            match WITHOUT.contains(&long) || plain.contains(&&*command) {
                true => assert_eq!(env, None, "{command} --{long}"),
                false => assert_eq!(env, Some(&*expected), "{command} --{long}"),
            }
        }
    }

    #[test]
    fn the_exceptions_are_options_and_documented() {
        let options = options(&CommandLine::command());
        let document = include_str!("../../docs/options.md");
        let (_, section) = document.split_once("CKPTFS_OPTION").unwrap();
        let section = section.split("\n# ").next().unwrap();
        for long in WITHOUT {
            let mut all = options.iter();
            assert!(
                all.any(|(_, option)| option.get_long() == Some(long)),
                "{long}"
            );
            assert!(section.contains(&format!("`--{long}`")), "{long}");
        }
    }

    #[test]
    fn a_command_line_wins_over_variables_that_contradict_it() {
        let given = |words: &[&str]| {
            let words = [&["ckptfs"], words].concat();
            let command = unparsed(CommandLine::command().ignore_errors(true));
            let given = command.try_get_matches_from(words).unwrap();
            let command = completed(CommandLine::command(), Some(&given));
            let verify = command.find_subcommand("verify").unwrap();
            let has = |command: &Command, id: &str| {
                let mut args = command.get_arguments();
                args.any(|arg| arg.get_id() == id && arg.get_env().is_some())
            };
            [
                has(&command, "quiet"),
                has(verify, "nan"),
                has(verify, "adapter"),
            ]
        };
        assert_eq!(given(&["verify", "a"]), [true, true, true]);
        assert_eq!(given(&["verify", "a", "-v"]), [false, true, true]);
        assert_eq!(
            given(&["verify", "a", "--against", "b"]),
            [true, false, true]
        );
        assert_eq!(given(&["verify", "a", "--merge=b"]), [true, true, false]);
        // Also where the words are wrong.
        assert_eq!(
            given(&["verify", "--against", "b", "--x"]),
            [true, false, true]
        );
    }
}
