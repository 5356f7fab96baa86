use super::*;

fn wants(names: &[&str]) -> Vec<(LockName, Mode)> {
    names.iter().map(|&name| (name.into(), Mode::Shared)).collect()
}

fn held(token: u64) -> Held {
    Held { mode: Mode::Shared, token }
}

/// A view in which `a` is held with token 1.
fn holding_a() -> LocalView {
    let mut view = LocalView::default();
    view.ask(1, wants(&["a"]), false).unwrap();
    assert!(view.decide(1, Some(1)).is_some());
    view
}

#[test]
fn a_name_can_be_requested_once_at_a_time() {
    let mut view = holding_a();
    assert_eq!(view.ask(2, wants(&["b", "a"]), false), Err(AcquireError::AlreadyHeld(held(1))));
    view.ask(3, wants(&["b"]), false).unwrap();
    assert_eq!(view.ask(4, wants(&["b"]), true), Err(AcquireError::AlreadyWaiting));
    for other in [vec![("b".into(), Mode::Exclusive)], wants(&["b", "c"]), wants(&["c", "b"])] {
        let asked = view.ask(4, other, true);
        assert!(matches!(asked, Err(AcquireError::Invalid(_))), "{asked:?}");
    }
    assert!(view.decide(3, None).is_some());
    view.ask(5, wants(&["b"]), false).unwrap();
}

#[test]
fn a_request_is_decided_once() {
    let mut view = LocalView::default();
    view.ask(1, wants(&["a", "b"]), false).unwrap();
    assert_eq!(view.withdraw(1).unwrap().wants.len(), 2);
    assert!(view.decide(1, Some(7)).is_none(), "the grant is being given back");
    assert!(view.withdraw(1).is_none());
    assert_eq!(view.held(&"a".into()), None);

    view.ask(2, wants(&["a"]), false).unwrap();
    assert!(view.decide(2, Some(8)).is_some());
    assert!(view.withdraw(2).is_none(), "the grant stays");
    assert_eq!(view.held(&"a".into()), Some(held(8)));
}

#[test]
fn a_place_is_given_up_for_all_its_names() {
    let mut view = LocalView::default();
    view.ask(1, wants(&["a", "b"]), false).unwrap();
    let given = view.give_up(&"b".into()).unwrap();
    assert_eq!((given.released, given.request), (Released::Place, Some(1)));
    assert_eq!(given.names, [LockName::from("a"), "b".into()]);
    assert_eq!(view.give_up(&"a".into()), None);
    assert!(view.decide(1, Some(1)).is_none());
}

#[test]
fn a_conversion_that_fails_leaves_what_was_held() {
    let a = LockName::from("a");
    for end in [|c: &mut LocalView| c.decide(2, None).is_some(), |c: &mut LocalView| c.withdraw(2).is_some()]
    {
        let mut view = holding_a();
        view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
        let again = view.ask_to_convert(3, a.clone(), Mode::Exclusive, false);
        assert_eq!(again, Err(AcquireError::AlreadyWaiting));
        let other = view.ask_to_convert(3, a.clone(), Mode::Shared, false);
        assert!(matches!(other, Err(AcquireError::Invalid(_))), "{other:?}");
        assert_eq!(view.waiting(), [2]);
        assert!(end(&mut view));
        assert_eq!(view.held(&a), Some(held(1)));
    }
    let mut view = holding_a();
    view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
    assert!(view.decide(2, Some(5)).is_some());
    assert_eq!(view.held(&a), Some(Held { mode: Mode::Exclusive, token: 5 }));
    view.ask_to_convert(3, a.clone(), Mode::Shared, false).unwrap();
    assert!(view.waiting().is_empty(), "a downgrade cannot be taken back");
    assert_eq!(view.give_up(&a).unwrap().released, Released::Hold);
    assert!(view.decide(3, Some(5)).is_none());
    assert_eq!(view.ask_to_convert(4, a, Mode::Shared, false), Err(AcquireError::NotHeld));
}

#[test]
fn a_kept_request_is_resumed_by_a_call_with_the_same_names_and_modes() {
    let mut view = LocalView::default();
    view.ask(1, wants(&["a", "b"]), false).unwrap();
    assert_eq!(view.resume_acquire(&wants(&["a", "b"])), None, "a call still waits for it");
    assert!(view.keep(1) && !view.keep(2));
    assert_eq!(view.resume_acquire(&wants(&["a"])), None);
    assert_eq!(view.resume_acquire(&[("a".into(), Mode::Exclusive), ("b".into(), Mode::Shared)]), None);
    assert_eq!(view.collect(&"b".into()), Ok(1));
    assert_eq!(view.resume_conversion(&"a".into(), Mode::Shared), None, "it is not held");
    assert_eq!(view.ask(3, wants(&["a"]), false), Err(AcquireError::AlreadyWaiting));
    assert_eq!(view.resume_acquire(&wants(&["a", "b"])), Some(1));
    assert_eq!(view.resume_acquire(&wants(&["a", "b"])), None, "only one call resumes it");
    assert_eq!(view.collect(&"b".into()), Err(AcquireError::NotHeld));

    view.keep(1);
    assert!(view.withdraw(1).is_some());
    assert_eq!(
        (view.collect(&"a".into()), view.collect(&"a".into())),
        (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
    );
    assert!(view.decide(1, Some(7)).is_none(), "the grant is being given back");
}

#[test]
fn a_kept_conversion_is_resumed_too() {
    let (mut view, a) = (holding_a(), LockName::from("a"));
    view.ask_to_convert(2, "a".into(), Mode::Exclusive, false).unwrap();
    view.keep(2);
    assert_eq!(view.collect(&a), Ok(2));
    assert_eq!(view.resume_acquire(&[(a.clone(), Mode::Exclusive)]), None, "it is held already");
    assert_eq!(view.resume_conversion(&a, Mode::Exclusive), Some(2));
    view.keep(2);
    assert!(view.withdraw(2).is_some());
    assert_eq!((view.resume_conversion(&a, Mode::Exclusive), view.held(&"a".into())), (None, Some(held(1))));
}

#[test]
fn a_failed_request_restores_the_untold_cancellation_before_it() {
    let a = LockName::from("a");
    let ends: [fn(&mut LocalView); 3] = [
        |view| assert!(view.decide(2, None).is_some()),
        |view| assert!(view.withdraw(2).is_some()),
        // Giving up one name gives up the whole request.
        |view| assert!(view.give_up(&"b".into()).is_some()),
    ];
    for end in ends {
        let mut view = LocalView::default();
        view.ask(1, wants(&["a"]), true).unwrap();
        assert!(view.withdraw(1).is_some());
        view.ask(2, wants(&["a", "b"]), false).unwrap();
        end(&mut view);
        assert_eq!(
            (view.collect(&a), view.collect(&a)),
            (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
        );
        assert_eq!(view.collect(&"b".into()), Err(AcquireError::NotHeld));
    }
    for end in &ends[..2] {
        let mut view = holding_a();
        view.ask_to_convert(1, a.clone(), Mode::Exclusive, true).unwrap();
        assert!(view.withdraw(1).is_some());
        view.ask_to_convert(2, a.clone(), Mode::Exclusive, false).unwrap();
        end(&mut view);
        assert_eq!(
            (view.collect(&a), view.collect(&a)),
            (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
        );
        assert_eq!(view.held(&a), Some(held(1)));
    }
}

#[test]
fn a_cancelled_place_is_reported_once() {
    let (mut view, a) = (LocalView::default(), LockName::from("a"));
    view.ask(1, wants(&["a"]), true).unwrap();
    assert_eq!(view.collect(&a), Ok(1));
    assert!(view.withdraw(1).is_some());
    view.ack_cancelled(&a, 9);
    assert_eq!(view.collect(&a), Err(AcquireError::Cancelled));
    assert_eq!(view.collect(&a), Err(AcquireError::NotHeld));

    view.ask(2, wants(&["a"]), false).unwrap();
    assert_eq!(
        view.collect(&a),
        Err(AcquireError::NotHeld),
        "another call may not collect what an acquire waits for"
    );
}
#[test]
fn a_place_to_convert_is_not_shared_and_its_cancellation_is_reported_once() {
    let (mut view, a) = (holding_a(), LockName::from("a"));
    view.ask_to_convert(2, a.clone(), Mode::Exclusive, true).unwrap();
    assert_eq!(view.collect(&a), Ok(2));
    assert_eq!(view.resume_conversion(&a, Mode::Exclusive), None, "no call for it was interrupted");
    let again = view.ask_to_convert(3, a.clone(), Mode::Exclusive, true);
    assert_eq!((again, view.waiting()), (Err(AcquireError::AlreadyWaiting), vec![2]));
    assert!(view.withdraw(2).is_some());
    assert_eq!((view.held(&a), view.is_waiting(&a)), (Some(held(1)), false));
    assert_eq!(view.ask(4, wants(&["a"]), false), Err(AcquireError::AlreadyHeld(held(1))));
    view.ack_cancelled(&a, 9);
    assert_eq!(
        (view.collect(&a), view.collect(&a)),
        (Err(AcquireError::Cancelled), Err(AcquireError::NotHeld))
    );
    assert_eq!(view.held(&a), Some(held(1)));

    view.ask_to_convert(5, a.clone(), Mode::Exclusive, true).unwrap();
    assert!(view.withdraw(5).is_some());
    view.ask_to_convert(6, a.clone(), Mode::Exclusive, true).unwrap();
    assert_eq!(view.collect(&a), Ok(6), "the cancelled one is forgotten");
    assert!(view.decide(5, Some(7)).is_none());
    assert!(view.decide(6, Some(8)).is_some());
    assert_eq!(view.held(&a), Some(Held { mode: Mode::Exclusive, token: 8 }));

    view.ask_to_convert(7, a.clone(), Mode::Exclusive, true).unwrap();
    assert!(view.withdraw(7).is_some());
    assert_eq!(view.give_up(&a).unwrap().released, Released::Hold);
    assert_eq!(view.collect(&a), Err(AcquireError::NotHeld));
}
