use super::{A, ABSENT, B, Flush, World, explore};

fn nothing(_: &World) {}

/// Something is dirty.
fn dirty(world: &World) {
    world.write(&[A, B]);
}

/// Something is below.
fn clean(world: &World) {
    world.write(&[A, B]);
    world.flush(Flush::Whole);
}

fn put(world: &World) {
    world.write(&[A]);
}

fn put_twice(world: &World) {
    world.write(&[A]);
    world.write(&[A]);
}

fn put_pair(world: &World) {
    world.write(&[A, B]);
}

fn get(world: &World) {
    world.get(A);
}

/// What one has read, no other goes behind.
fn get_twice(world: &World) {
    world.get(A);
    world.get(A);
}

fn flush(world: &World) {
    world.flush(Flush::Whole);
}

fn flush_twice(world: &World) {
    world.flush(Flush::Whole);
    world.flush(Flush::Whole);
}

fn flush_singly(world: &World) {
    world.flush(Flush::Singly);
}

fn flush_in_part(world: &World) {
    world.flush(Flush::InPart);
}

fn flush_again(world: &World) {
    world.flush(Flush::AnswerLost);
}

fn put_if_absent(world: &World) {
    world.write_if(A, ABSENT);
}

/// On the first write.
fn put_if_first(world: &World) {
    world.write_if(A, 1);
}

fn page(world: &World) {
    world.page();
}

#[test]
fn a_read_against_a_write_and_a_flush() {
    explore(nothing, [put, get_twice, flush]);
    explore(dirty, [put, get_twice, flush]);
    explore(clean, [put, get_twice, flush]);
}

#[test]
fn a_read_against_flushes_of_what_is_written_again() {
    explore(dirty, [put_twice, get, flush_twice]);
}

#[test]
fn reads_against_a_write_and_a_flush() {
    explore(clean, [put, get, get, flush]);
}

#[test]
fn a_read_against_a_flush_that_fails() {
    explore(dirty, [put, get_twice, flush_in_part]);
    explore(dirty, [put, get_twice, flush_again]);
}

#[test]
fn two_writers_against_a_flush() {
    explore(nothing, [put, put, flush]);
    explore(dirty, [put, put_pair, flush_singly]);
}

#[test]
fn a_page_shows_a_batch_wholly() {
    explore(dirty, [put_pair, page, flush]);
    explore(clean, [put_pair, page, flush_twice]);
}

#[test]
fn a_page_shows_a_batch_wholly_where_the_store_below_takes_no_batches() {
    explore(dirty, [put_pair, page, flush_singly]);
    explore(dirty, [put_pair, page, flush_in_part]);
    explore(clean, [put_pair, page, flush_singly]);
}

#[test]
fn of_two_that_require_the_absence_one_wins() {
    explore(nothing, [put_if_absent, put_if_absent, flush]);
}

/// What was read below is old once it was flushed over.
#[test]
fn a_condition_against_a_write_and_a_flush() {
    explore(nothing, [put_if_absent, put, flush]);
    explore(clean, [put_if_first, put, flush]);
    explore(dirty, [put_if_first, put, flush]);
}

#[test]
fn a_condition_against_a_flush_that_fails() {
    explore(clean, [put_if_first, put_pair, flush_in_part]);
    explore(clean, [put_if_first, put_pair, flush_again]);
}

#[test]
fn a_condition_against_one_that_follows_it() {
    explore(clean, [put_if_first, put_if_first, flush]);
}
