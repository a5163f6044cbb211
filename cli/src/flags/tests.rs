use super::*;

fn parsed(args: &[&str]) -> Parsed {
    parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), |_| None)
}

fn flags(args: &[&str]) -> Flags {
    let parsed = parsed(args);
    assert_eq!(parsed.error, None, "{args:?}");
    parsed.flags
}

fn error(args: &[&str]) -> String {
    parsed(args).error.unwrap().to_string()
}

#[test]
fn names_are_unique_and_defaults_are_values() {
    for (at, flag) in FLAGS.iter().enumerate() {
        assert!(FLAGS[..at].iter().all(|f| f.name != flag.name), "{} is there twice", flag.name);
        assert!(foreign::find(flag.name).is_none(), "{}", flag.name);
        assert!(flag.kind.check(flag.name, flag.default).is_ok(), "{}", flag.name);
        assert!(!flag.help.is_empty() && !flag.roles.is_empty(), "{}", flag.name);
    }
}

#[test]
fn every_spelling() {
    for args in
        [&["--endpoint=a:1"][..], &["--endpoint", "a:1"], &["-endpoint=a:1"], &["-endpoint", "a:1"]]
    {
        assert_eq!(flags(args).text("endpoint"), "a:1");
    }
    for (args, want) in [
        (&["--bootstrap"][..], true),
        (&["--nobootstrap"], false),
        (&["--bootstrap=false"], false),
        (&["--bootstrap=1"], true),
        (&["--bootstrap=Y"], true),
        (&["--bootstrap=f"], false),
        (&["--interactive=no", "--bootstrap=t"], true),
        (&[], false),
    ] {
        assert_eq!(flags(args).truth("bootstrap"), want, "{args:?}");
    }
    assert_eq!(flags(&["--cmd=a=b c"]).text("cmd"), "a=b c");
    assert_eq!(flags(&["--cmd", "-x"]).text("cmd"), "-x");
    assert_eq!(flags(&["--database="]).text("database"), "");
    assert!(flags(&["--strict-exit"]).truth("strict_exit"));
    assert_eq!(
        flags(&["--request_timeout_ms=5", "--request_timeout_ms=6"]).number("request_timeout_ms"),
        6
    );
    assert_eq!(flags(&[]).number("request_timeout_ms"), 20_000);
    assert_eq!(flags(&["--nameservers=a:1, b:2,"]).list("nameservers"), ["a:1", "b:2"]);
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(error(&["--bogus=1"]), "unknown flag --bogus; --help lists the flags");
    assert_eq!(error(&["--endpiont=a:1"]), "unknown flag --endpiont; did you mean --endpoint?");
    assert_eq!(error(&["--nobogus"]), "unknown flag --nobogus; --help lists the flags");
    assert_eq!(error(&["--noendpoint"]), "unknown flag --noendpoint; did you mean --endpoint?");
    assert_eq!(error(&["--bootstrap=maybe"]), "--bootstrap=maybe is wrong: it takes true or false");
    assert_eq!(
        error(&["--request_timeout_ms=-1"]),
        "--request_timeout_ms=-1 is wrong: it takes a whole number"
    );
    assert_eq!(
        error(&["--layout=new"]),
        "--layout=new is wrong: it takes one of auto, classic, current"
    );
    assert_eq!(error(&["--endpoint"]), "--endpoint needs a value; write --endpoint=...");
    assert_eq!(
        error(&["--interactive", "false"]),
        "unexpected argument 'false': flags are written --name=value"
    );
    assert_eq!(error(&["-"]), "unexpected argument '-': flags are written --name=value");
}

#[test]
fn the_rest_is_read_after_an_error_and_the_first_is_told() {
    let parsed = parsed(&["--bogus", "--role=client", "--worse=1"]);
    assert_eq!(parsed.flags.text("role"), "client");
    assert!(parsed.error.unwrap().to_string().contains("--bogus"));
}

#[test]
fn a_flag_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let write = |name: &str, text: &str| {
        stela_common::fs::write(std::path::Path::new(&path(name)), text.as_bytes()).unwrap()
    };
    write("inner", "--cluster=inner\n");
    write(
        "good",
        &format!(
            "# a comment\n\n  --endpoint=a:1  \n-zk_root_path /x y\n--bootstrap\n--cmd=put t a b\n--gc_pool_size=2\n--flagfile={}\n",
            path("inner")
        ),
    );
    let got = flags(&["--endpoint=b:2", &format!("--flagfile={}", path("good")), "--nobootstrap"]);
    assert_eq!(got.text("endpoint"), "a:1");
    assert_eq!(got.text("zk_root_path"), "/x y");
    assert_eq!(got.text("cmd"), "put t a b");
    assert_eq!(got.text("cluster"), "inner");
    assert!(!got.truth("bootstrap"));
    assert_eq!(got.foreign(), ["gc_pool_size"]);

    write("bad", "--endpoint=a:1\n--bogus=1\n");
    let text = error(&[&format!("--flagfile={}", path("bad"))]);
    assert!(text.ends_with("bad, line 2: unknown flag --bogus; --help lists the flags"), "{text}");
    write("bad", "endpoint=a:1\n");
    assert!(
        error(&[&format!("--flagfile={}", path("bad"))])
            .contains("line 1: 'endpoint=a:1' is not a flag")
    );
    write("bad", "--bootstrap yes\n");
    assert!(error(&[&format!("--flagfile={}", path("bad"))]).contains("line 1: unexpected 'yes'"));
    write("circle", &format!("--flagfile={}\n", path("circle")));
    assert!(error(&[&format!("--flagfile={}", path("circle"))]).contains("in a circle"));
    assert!(
        error(&["--flagfile=/no/such/file"]).starts_with("cannot read --flagfile=/no/such/file: ")
    );
}

#[test]
fn the_environment_is_read_first() {
    let environment = |name: &str| match name {
        "STELA_LAYOUT" => Some("classic".to_owned()),
        "STELA_STRICT_EXIT" => Some("1".to_owned()),
        "STELA_CLUSTER" => Some(String::new()),
        _ => None,
    };
    let got = parse(&["--layout=current".into()], environment).flags;
    assert_eq!(
        (got.text("layout"), got.truth("strict_exit"), got.is_given("cluster")),
        ("current", true, false)
    );
    let wrong = parse(&[], |name| (name == "STELA_LAYOUT").then(|| "new".to_owned()));
    assert!(
        wrong
            .error
            .unwrap()
            .to_string()
            .starts_with("environment variable STELA_LAYOUT: --layout=new is wrong")
    );
}

#[test]
fn the_cluster_has_two_names() {
    assert_eq!(flags(&[]).cluster(), Ok(None));
    assert_eq!(flags(&["--cluster=x"]).cluster(), Ok(Some("x")));
    assert_eq!(flags(&["--zk_root_path=/x"]).cluster(), Ok(Some("x")));
    assert_eq!(flags(&["--zk_root_path=/x", "--cluster=x"]).cluster(), Ok(Some("x")));
    assert!(flags(&["--zk_root_path=/x", "--cluster=y"]).cluster().is_err());
}

#[test]
fn help_fits_a_terminal_and_names_every_flag_of_the_role() {
    for role in Role::ALL {
        let text = role_help(role);
        assert!(text.lines().all(|l| l.len() <= 110), "{text}");
        for flag in FLAGS.iter().filter(|f| f.roles.contains(&role) && f.name != "role") {
            assert!(text.contains(&format!("  --{}", flag.name)), "{}", flag.name);
        }
        assert_eq!(Role::parse(role.word()), Some(role));
        assert_eq!(Role::parse(role.command()), Some(role));
        assert!(overview().contains(role.command()));
    }
}
