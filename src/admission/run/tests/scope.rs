//! Which plugins see which reviews: scopes, exemptions and conditions.

use super::*;

#[test]
fn a_plugin_is_asked_only_about_what_its_scope_covers() {
    let scoped = |name: &str, scope| Member {
        scope,
        ..member(name, allow)
    };
    let globs = |pattern: &str| Globs::parse(&[pattern]).ok();
    let chain = chain([
        scoped(
            "runs",
            Scope {
                kinds: Some(vec![Kind::Run]),
                ..Scope::default()
            },
        ),
        scoped(
            "fleets",
            Scope {
                kinds: Some(vec![Kind::Fleet]),
                ..Scope::default()
            },
        ),
        scoped(
            "not-main",
            Scope {
                projects: globs("!main"),
                ..Scope::default()
            },
        ),
        scoped(
            "alice",
            Scope {
                users: globs("al*"),
                ..Scope::default()
            },
        ),
    ]);
    assert_eq!(asked(&chain, "{}"), ["runs mutating", "alice mutating"]);
}

#[rstest]
#[case::held(1001, true)]
#[case::ends_now(1000, false)]
#[case::over(999, false)]
fn an_exemption_holds_until_it_expires(#[case] expires: u64, #[case] holds: bool) {
    let mut chain = chain([member("a", deny("no")), validating("a", deny("no"))]);
    chain.exempt(Exemption {
        plugins: vec!["a".into()],
        scope: Scope::default(),
        reason: "TICKET-12".into(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
    });
    let decision = decide(&chain, "{}");
    assert_eq!(decision.allowed(), holds);
    let exempt = |part: &Part| matches!(&part.result, PartResult::Exempt(reason) if &**reason == "TICKET-12");
    assert_eq!(decision.parts.iter().all(exempt), holds);
}

#[test]
fn an_exemption_is_for_its_plugins_and_scope_alone() {
    let mut chain = chain([member("a", allow), member("b", allow)]);
    let exemption = |plugin: &str, project: &str| Exemption {
        plugins: vec![plugin.into()],
        scope: Scope {
            projects: Globs::parse(&[project]).ok(),
            ..Scope::default()
        },
        reason: "launch".into(),
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2000),
    };
    chain.exempt(exemption("a", "main"));
    chain.exempt(exemption("b", "demo"));
    assert_eq!(asked(&chain, "{}"), ["b mutating"]);
    assert_eq!(results(&decide(&chain, "{}")), ["a: exempt", "b: allowed"]);
}

#[test]
fn a_condition_that_is_false_skips_the_plugin() {
    let skipping = |_: &Call| Outcome::Skipped("only-gpus".to_owned());
    let decision = decide(&chain([member("a", skipping)]), "{}");
    assert_eq!(results(&decision), ["a: skipped"]);
    assert!(decision.allowed());
}
