use super::*;
#[test]
fn each_epoch_differs_from_all_before_it_and_nothing_follows_the_closed_one() {
    let epochs = Epochs::new(Mode::Disconnected);
    let mut seen = vec![epochs.now()];
    for mode in [Some(Mode::Keeping), None, Some(Mode::Keeping), Some(Mode::Disconnected), None] {
        match mode {
            Some(mode) => epochs.begin(mode),
            None => epochs.renew(),
        }
        let now = epochs.now();
        assert!(!seen.contains(&now));
        let keeps = mode.map_or(seen[seen.len() - 1].keeps(), |mode| mode == Mode::Keeping);
        assert_eq!(now.keeps(), keeps);
        seen.push(now);
    }
    epochs.begin(Mode::Closed);
    let closed = epochs.now();
    epochs.begin(Mode::Keeping);
    epochs.renew();
    assert_eq!(epochs.now(), closed);
    assert!(!closed.keeps());
}
