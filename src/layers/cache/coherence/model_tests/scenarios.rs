use super::Below::{Early, Later, Now};
use super::epoch::Mode;
use super::{DOUBT, KEY, World, explore, spawned, together};

fn get_now(world: &World) {
    world.get(Now);
}

fn get_later(world: &World) {
    world.get(Later);
}

fn get_early(world: &World) {
    world.get(Early);
}

fn put(world: &World) {
    world.write(false);
}

fn delete(world: &World) {
    world.write(true);
}

/// The store below takes something that is not reported here.
fn foreign(world: &World) {
    world.take(false);
}

fn put_and_keep(world: &World) {
    world.write_and_keep();
}

/// A write that no task waits for any more, and that arrives then.
fn arrives_later(world: &World) {
    world.abandoned();
    foreign(world);
}

#[test]
fn a_fill_against_a_write() {
    explore(Mode::Keeping, |world| together(world, [get_now, put]));
    explore(Mode::Keeping, |world| together(world, [get_later, put]));
    explore(Mode::Keeping, |world| together(world, [get_early, put]));
}

#[test]
fn a_fill_against_a_delete() {
    explore(Mode::Keeping, |world| together(world, [get_now, delete]));
    explore(Mode::Keeping, |world| together(world, [get_later, delete]));
    explore(Mode::Keeping, |world| together(world, [get_early, delete]));
}

#[test]
fn two_fills_against_a_write() {
    explore(Mode::Keeping, |world| together(world, [get_now, get_later, put]));
    explore(Mode::Keeping, |world| together(world, [get_now, get_now, put]));
}

/// A reader that comes after the acknowledgement never gets an older value from a load that others wait for.
#[test]
fn who_joins_a_load_against_a_write() {
    explore(Mode::Keeping, |world| together(world, [get_later, get_later, put]));
    explore(Mode::Keeping, |world| together(world, [get_early, get_early, put]));
}

/// The same where the load began during the write: its generation is neither the one before nor the one after.
#[test]
fn who_joins_a_load_that_began_during_a_write() {
    explore(Mode::Keeping, |world| {
        let coherence = &world.0.coherence;
        let writing = coherence.begin_write([KEY].into_iter());
        let readers = [(); 2].map(|()| spawned(world, get_later));
        let number = world.take(false);
        writing.settle();
        world.guarantee(number);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// A reader that has seen what is not acknowledged yet may then meet the load of one that has not.
#[test]
fn who_has_seen_the_new_value_does_not_join_a_load_from_before_it() {
    for first in [get_later as fn(&World), get_early] {
        explore(Mode::Keeping, move |world| {
            let writing = world.0.coherence.begin_write([KEY].into_iter());
            let sees: fn(&World) = |world| {
                world.get(Now);
                world.get(Later);
            };
            together(world, [first, sees, foreign]);
            writing.settle();
        });
    }
}

#[test]
fn a_refresh_against_a_write() {
    explore(Mode::Keeping, |world| {
        world.get(Now);
        together(world, [World::refresh, put, get_now]);
    });
    explore(Mode::Keeping, |world| {
        world.get(Now);
        together(world, [World::refresh, put, get_later]);
    });
}

/// A reader that joins a load which its reader has left is answered all the same, and not with what is too old.
#[test]
fn a_load_that_nobody_waits_for_against_one_who_comes_to_wait() {
    explore(Mode::Keeping, |world| together(world, [World::leave, get_later]));
    explore(Mode::Keeping, |world| together(world, [World::leave, get_later, put]));
    explore(Mode::Keeping, |world| {
        let writing = world.0.coherence.begin_write([KEY].into_iter());
        together(world, [World::leave, get_later, foreign]);
        writing.settle();
    });
}

#[test]
fn a_fill_against_two_writers() {
    explore(Mode::Keeping, |world| together(world, [get_later, put, put]));
    explore(Mode::Keeping, |world| together(world, [get_now, put, delete]));
}

#[test]
fn a_write_that_is_refused_leaves_nothing_behind() {
    explore(Mode::Keeping, |world| {
        together(world, [get_now, World::refused, put]);
        world.get(Now);
        assert!(world.lookup().is_some(), "kept again");
    });
}

/// It may arrive between the question of one load and that of another.
#[test]
fn a_write_of_unknown_outcome_that_arrives_later() {
    explore(Mode::Keeping, |world| {
        world.abandoned();
        together(world, [get_now, get_now, foreign]);
    });
    explore(Mode::Keeping, |world| {
        world.abandoned();
        together(world, [get_later, get_later, foreign]);
    });
}

#[test]
fn a_writer_that_leaves_while_others_read() {
    explore(Mode::Keeping, |world| together(world, [get_now, get_later, arrives_later]));
    explore(Mode::Keeping, |world| together(world, [get_now, put, arrives_later]));
}

#[test]
fn the_doubt_about_a_write_ends_when_nothing_arrives_any_more() {
    explore(Mode::Keeping, |world| {
        let ends: fn(&World) = |world| {
            arrives_later(world);
            *world.0.time.0.lock() += DOUBT;
        };
        together(world, [get_now, get_later, ends]);
        world.get(Now);
        assert!(world.lookup().is_some(), "kept again");
    });
}

/// A load that began in doubt may have found what was there before the write, also once the doubt has ended.
#[test]
fn who_comes_after_a_doubt_does_not_join_a_load_that_began_in_it() {
    explore(Mode::Keeping, |world| {
        world.abandoned();
        let arrives: fn(&World) = |world| {
            foreign(world);
            world.get(Now);
            *world.0.time.0.lock() += DOUBT;
            world.get(Later);
        };
        together(world, [get_later, arrives]);
    });
}

#[test]
fn a_fill_against_a_foreign_change() {
    explore(Mode::Keeping, |world| together(world, [get_now, World::reported]));
    explore(Mode::Keeping, |world| together(world, [get_later, get_later, World::reported]));
}

#[test]
fn a_fill_against_a_new_epoch() {
    explore(Mode::Keeping, |world| together(world, [get_now, World::all_reported]));
    explore(Mode::Keeping, |world| together(world, [get_later, get_later, World::all_reported]));
    explore(Mode::Keeping, |world| together(world, [get_now, get_later, World::ingest]));
}

#[test]
fn a_fill_against_an_invalidation_of_a_prefix() {
    let invalidated = World::prefix_invalidated;
    explore(Mode::Keeping, move |world| together(world, [get_now, invalidated]));
    explore(Mode::Keeping, move |world| together(world, [get_later, get_later, invalidated]));
    explore(Mode::Keeping, move |world| {
        world.get(Now);
        together(world, [get_now, invalidated]);
    });
}

/// The table of prefixes is full then, and is forgotten after a sweep.
#[test]
fn a_fill_against_the_sweep_of_full_prefixes() {
    let invalidated = World::prefix_invalidated;
    for kept in [false, true] {
        explore(Mode::Keeping, move |world| {
            if kept {
                world.get(Now);
            }
            world.invalidate_prefix(b"other");
            let reader = spawned(world, get_now);
            let marker = spawned(world, invalidated);
            reader.join().unwrap();
            marker.join().unwrap();
            // A reader without a copy from before.
            spawned(world, get_now).join().unwrap();
            *world.1.lock() = None;
        });
    }
}

/// The prefix of the key was invalidated before, and that is forgotten during a lookup.
#[test]
fn a_reader_against_the_sweep_of_a_mark_that_was_there() {
    explore(Mode::Keeping, |world| {
        world.get(Now);
        world.prefix_invalidated();
        let fills: fn(&World) = |world| world.invalidate_prefix(b"other");
        together(world, [get_now, get_later, fills]);
    });
}

/// What a thread has copied is old as soon as the entry is.
#[test]
fn a_copy_against_a_write() {
    let twice: fn(&World) = |world| {
        world.get(Now);
        world.get(Now);
    };
    explore(Mode::Keeping, move |world| {
        world.get(Now);
        together(world, [twice, get_now, put]);
    });
    explore(Mode::Keeping, move |world| {
        world.get(Now);
        together(world, [twice, get_now, World::all_reported]);
    });
    // Between the registration of a write and its end.
    explore(Mode::Keeping, move |world| {
        world.get(Now);
        let writing = world.0.coherence.begin_write([KEY].into_iter());
        let arrives: fn(&World) = |world| {
            world.forget();
            foreign(world);
        };
        together(world, [twice, get_now, arrives]);
        writing.settle();
    });
}

/// Others change the key, and nobody tells.
#[test]
fn nothing_is_kept_while_changes_go_unreported() {
    explore(Mode::Disconnected, move |world| together(world, [get_now, get_now, foreign]));
    explore(Mode::Disconnected, move |world| together(world, [get_later, get_later, foreign]));
    let returns: fn(&World) = |world| {
        foreign(world);
        world.all_reported();
    };
    explore(Mode::Disconnected, move |world| together(world, [get_now, get_later, returns]));
}

#[test]
fn nothing_is_served_once_it_is_closed() {
    explore(Mode::Keeping, |world| {
        let close: fn(&World) = |world| {
            world.0.coherence.epochs.begin(Mode::Closed);
            world.forget();
            let number = world.take(false);
            world.guarantee(number);
        };
        together(world, [get_now, get_now, close]);
        assert!(world.lookup().is_none());
    });
}

/// Writes of other keys of the stripe cost a load that is not kept, and nothing else.
#[test]
fn a_write_of_a_neighbour_keeps_no_load_from_its_end() {
    explore(Mode::Keeping, |world| {
        let neighbour: fn(&World) = |world| {
            world.0.coherence.begin_write([&KEY[..0]].into_iter()).settle();
        };
        together(world, [get_later, get_later, neighbour]);
        world.get(Now);
        assert!(world.lookup().is_some());
    });
}

#[test]
fn what_was_written_is_kept_where_nothing_else_touches_it() {
    explore(Mode::Keeping, |world| {
        together(world, [get_now, put_and_keep]);
        world.get(Now);
        assert!(world.lookup().is_some());
    });
    explore(Mode::Keeping, |world| {
        world.write_and_keep();
        assert!(world.lookup().is_some(), "at once");
    });
}

#[test]
fn what_was_written_against_loads() {
    explore(Mode::Keeping, |world| together(world, [get_later, get_later, put_and_keep]));
    explore(Mode::Keeping, |world| {
        world.get(Now);
        together(world, [World::refresh, put_and_keep, get_now]);
    });
}

/// In which order the store below took them, nobody knows.
#[test]
fn what_was_written_against_another_write() {
    explore(Mode::Keeping, |world| together(world, [put_and_keep, put_and_keep]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, put, get_now]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, put_and_keep, get_now]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, delete, get_later]));
}

#[test]
fn what_was_written_against_a_write_of_unknown_outcome() {
    explore(Mode::Keeping, |world| {
        world.abandoned();
        together(world, [put_and_keep, foreign]);
    });
    explore(Mode::Keeping, |world| together(world, [put_and_keep, arrives_later, get_now]));
}

#[test]
fn what_was_written_against_what_others_change() {
    explore(Mode::Keeping, |world| together(world, [put_and_keep, World::reported]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, World::reported, get_now]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, World::all_reported]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, World::prefix_invalidated]));
    explore(Mode::Keeping, |world| together(world, [put_and_keep, World::ingest]));
}

#[test]
fn nothing_that_was_written_is_kept_while_changes_go_unreported() {
    explore(Mode::Disconnected, |world| together(world, [put_and_keep, foreign, get_now]));
    let returns: fn(&World) = |world| {
        foreign(world);
        world.all_reported();
    };
    explore(Mode::Disconnected, move |world| together(world, [put_and_keep, returns]));
    let loses: fn(&World) = |world| {
        world.0.coherence.epochs.begin(Mode::Disconnected);
        world.forget();
        foreign(world);
    };
    explore(Mode::Keeping, move |world| together(world, [put_and_keep, loses]));
}

/// What a thread has copied is not what is kept next.
#[test]
fn a_copy_against_what_was_written() {
    let twice: fn(&World) = |world| {
        world.get(Now);
        world.get(Now);
    };
    explore(Mode::Keeping, move |world| {
        world.get(Now);
        together(world, [twice, put_and_keep, get_now]);
    });
}

/// The sweep of a full table passes over what is kept meanwhile.
#[test]
fn what_was_written_against_the_sweep_of_full_prefixes() {
    explore(Mode::Keeping, |world| {
        world.invalidate_prefix(b"other");
        let writer = spawned(world, put_and_keep);
        let marker = spawned(world, World::prefix_invalidated);
        writer.join().unwrap();
        marker.join().unwrap();
        spawned(world, get_now).join().unwrap();
        *world.1.lock() = None;
    });
}
