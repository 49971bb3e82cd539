use super::super::facts::Fact;
use super::*;

fn endpoint() -> Arc<Endpoint> {
    Endpoint::new(EndpointSpec {
        name: "w1".into(),
        id: 1,
        weight: 2,
        backup: false,
        address: Some(([127, 0, 0, 1], 9001).into()),
        health: HealthState::Unchecked,
    })
}

#[test]
fn guards_count_while_they_live() {
    let endpoint = endpoint();
    let call = endpoint.call();
    let sessions = [endpoint.session(), endpoint.session()];
    assert_eq!(
        (endpoint.in_flight(), endpoint.sessions(), endpoint.busy()),
        (1, 2, 3)
    );
    assert_eq!(endpoint.load(), 2.0);
    assert_eq!(call.endpoint().name(), "w1");
    assert_eq!(sessions[0].endpoint().id(), 1);
    drop((call, sessions));
    assert_eq!(endpoint.busy(), 0);
    assert_eq!(endpoint.load(), 0.5);
}

#[test]
fn a_session_reaches_its_endpoint_unless_it_is_down_or_taken_out() {
    let endpoint = endpoint();
    let address = endpoint.address().ok_or(Unreachable::Unresolved);
    assert_eq!(endpoint.reach(), address, "not checked yet");
    endpoint.set_health(HealthState::Up);
    assert_eq!(endpoint.set_admin(Admin::Drain), Admin::Up);
    assert_eq!(endpoint.reach(), address, "draining");
    assert_eq!(endpoint.set_admin(Admin::Maint), Admin::Drain);
    assert_eq!(endpoint.reach(), Err(Unreachable::Maint));
    endpoint.set_admin(Admin::Up);
    endpoint.set_health(HealthState::Unwell);
    assert_eq!(endpoint.reach(), address, "it answers");
    endpoint.set_health(HealthState::Down);
    assert_eq!(endpoint.reach(), Err(Unreachable::Down));
    endpoint.set_health(HealthState::Up);
    endpoint.set_weight(0);
    assert_eq!(endpoint.reach(), address, "no weight");
    endpoint.set_address(None);
    assert_eq!(endpoint.reach(), Err(Unreachable::Unresolved));
}

#[test]
fn sessions_are_lost_when_it_is_down_taken_out_or_closing() {
    let endpoint = endpoint();
    assert!(!endpoint.has_lost_sessions(), "not checked yet");
    endpoint.set_health(HealthState::Unwell);
    assert!(!endpoint.has_lost_sessions(), "it answers");
    endpoint.set_health(HealthState::Down);
    assert!(endpoint.has_lost_sessions());
    endpoint.set_health(HealthState::Up);
    endpoint.set_admin(Admin::Drain);
    assert!(!endpoint.has_lost_sessions(), "draining");
    let window = Parting {
        from: std::time::Instant::now(),
        length: std::time::Duration::from_secs(1),
    };
    endpoint.close_over(Some(window));
    assert_eq!(endpoint.closing(), Some(window));
    assert!(endpoint.has_lost_sessions());
    endpoint.close_over(None);
    assert!(endpoint.closing().is_none() && !endpoint.has_lost_sessions());
    endpoint.set_admin(Admin::Maint);
    assert!(endpoint.has_lost_sessions());
}

#[test]
fn facts_are_forgotten_when_the_server_may_be_another() {
    let endpoint = endpoint();
    let issues = || endpoint.facts.issues_sessions.get();
    assert_eq!(issues(), Fact::Unknown);
    endpoint.facts.issues_sessions.learn(false);
    endpoint.set_health(HealthState::Up);
    assert_eq!(issues(), Fact::No);
    endpoint.set_health(HealthState::Down);
    assert_eq!(issues(), Fact::Unknown);

    endpoint.facts.issues_sessions.learn(true);
    assert!(!endpoint.set_address(endpoint.address()));
    assert_eq!(issues(), Fact::Yes, "the same address");
    assert!(endpoint.set_address(Some(([127, 0, 0, 1], 9002).into())));
    assert_eq!(issues(), Fact::Unknown);
}

#[test]
fn only_the_first_suspicion_wakes_the_checks() {
    let endpoint = endpoint();
    assert!(!endpoint.take_suspicion());
    assert!(endpoint.suspect());
    assert!(!endpoint.suspect());
    assert!(endpoint.take_suspicion());
    assert!(!endpoint.take_suspicion());
    assert!(endpoint.suspect());
}

#[test]
fn a_weight_has_a_bound() {
    let endpoint = endpoint();
    endpoint.set_weight(u32::MAX);
    assert_eq!(endpoint.weight(), WEIGHT_MAX);
}
