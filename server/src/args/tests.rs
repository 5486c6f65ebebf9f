use std::time::Duration;

use super::*;

fn parse(args: &[&str]) -> Result<Virtiofs, clap::Error> {
    let all = ["postern-server", "virtiofs"].iter().chain(args);
    Cli::try_parse_from(all).map(|cli| match cli.frontend {
        Frontend::Virtiofs(virtiofs) => *virtiofs,
        Frontend::P9(_) | Frontend::Proxy(_) => panic!("another frontend"),
    })
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn what_the_helper_decides_is_refused_with_a_helper_already_there() {
    assert!(parse(&["--sock-fd=3", "--fd=4"]).is_ok());
    for more in ["--readonly", "--shared-dir=/x", "--uid-map=:0:1:1:", "--xattrmap=guest", "--allow-setid"] {
        assert!(parse(&["--sock-fd=3", "--fd=4", more]).is_err(), "{more}");
    }
}

#[test]
fn what_the_policy_decides_is_refused_with_a_helper_of_roots() {
    let asked = ["--helper-socket=/s", "--fd=4", "--shared-dir=/x", "--readonly", "--security-model=mapped"];
    assert!(parse(&asked).is_ok());
    assert!(parse(&asked[..2]).is_err());
    for more in [
        "--sock-fd=3",
        "--helper=/x",
        "--uid-map=:0:1:1:",
        "--identity=host",
        "--translate-uid=map:0:1:1",
        "--allow-setid",
        "--max-rate=9",
    ] {
        assert!(parse(&[&asked[..], &[more]].concat()).is_err(), "{more}");
    }
}

#[test]
fn a_directory_or_a_helper_and_a_socket_are_needed() {
    assert!(parse(&["--socket-path=s"]).is_err());
    assert!(parse(&["--shared-dir=/x"]).is_err());
    assert!(parse(&["--shared-dir=/x", "--fd=3", "--socket-path=s"]).is_err());
}

#[test]
fn a_9p_device_has_a_tag_and_no_option_that_means_nothing_to_it() {
    let parse = |args: &[&str]| {
        let all = ["postern-server", "9p", "--shared-dir=/x", "--fd=3"].iter().chain(args);
        Cli::try_parse_from(all)
    };
    assert!(parse(&["--tag=share", "--msize-max=512000", "--xattr", "--once"]).is_ok());
    assert!(parse(&[]).is_err());
    for more in ["--cache=always", "--writeback", "--num-request-queues=2", "--msize-max=4095", "--announce-submounts"]
    {
        assert!(parse(&["--tag=share", more]).is_err(), "{more}");
    }
}

#[test]
fn timeouts_follow_the_cache_policy_unless_given() {
    let args = parse(&["--shared-dir=/x", "--fd=3", "--cache=always", "--attr-timeout=0.5"]).unwrap();
    let settings = args.settings();
    assert_eq!(settings.entry_timeout, Duration::from_secs(86_400));
    assert_eq!(settings.attr_timeout, Duration::from_millis(500));
    assert!(parse(&["--shared-dir=/x", "--fd=3", "--attr-timeout=-1"]).is_err());
}
