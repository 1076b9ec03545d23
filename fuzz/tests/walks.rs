//! The fuzzer finds what it must find, and what was found stays fixed.

use std::process::{Command, Output};

fn fuzz(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mobo-fuzz")).args(args).output().expect("the binary is built")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn targets() -> Vec<String> {
    let output = fuzz(&["--list"]);
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    assert!(!names.is_empty());
    names
}

/// Golden inputs and all crashers that were ever found.
#[test]
fn what_is_on_the_shelf_crashes_nothing() {
    for target in targets() {
        let output = fuzz(&["--target", &target, "--replay"]);
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn every_kind_of_crash_is_caught_and_its_input_kept() {
    for (target, words) in
        [("drill-panic", "the drill's own fault"), ("drill-stack", "ended its process"), ("drill-memory", "ended its process")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let output = fuzz(&["--target", target, "--seconds", "60", "--seed", "7", "--crashers", &path]);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(words) && text.contains("--seed 7"), "{text}");
        let kept: Vec<_> = std::fs::read_dir(folder.path().join(target)).expect("kept").flatten().collect();
        assert_eq!(kept.len(), 1, "{text}");
        let input = std::fs::read(kept[0].path()).expect("readable");
        assert!(input.contains(&0xff), "{input:?}");
    }
}

#[test]
fn a_wrong_command_line_is_explained() {
    for (args, words) in [
        (&["--target", "frames"][..], "there is no target frames: there are frame"),
        (&["--seconds", "60"], "--target is missing"),
        (&["--target", "frame", "--seed", "x"], "give it a whole number"),
        (&["--target"], "--target needs a value"),
        (&["--now"], "there is no flag --now"),
    ] {
        let output = fuzz(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(words), "{}", text(&output));
    }
}
