use super::super::era::{Eras, Mode};

#[test]
fn each_era_differs_from_all_before_it_and_nothing_follows_the_closed_one() {
    let eras = Eras::new(Mode::Deaf);
    let mut seen = vec![eras.now()];
    for mode in [Some(Mode::Keeping), None, Some(Mode::Keeping), Some(Mode::Deaf), None] {
        match mode {
            Some(mode) => eras.begin(mode),
            None => eras.renew(),
        }
        let now = eras.now();
        assert!(!seen.contains(&now));
        let keeps = mode.map_or(seen[seen.len() - 1].keeps(), |mode| mode == Mode::Keeping);
        assert_eq!(now.keeps(), keeps);
        seen.push(now);
    }
    eras.begin(Mode::Closed);
    let closed = eras.now();
    eras.begin(Mode::Keeping);
    eras.renew();
    assert_eq!(eras.now(), closed);
    assert!(!closed.keeps());
}
