//! Batches of a list, by number and size.

/// Splits a list into batches of at most `max_items` items and `max_bytes` bytes. An item that exceeds the size alone has a
/// batch of its own.
pub(crate) fn batches<T>(
    items: &[T],
    max_items: usize,
    max_bytes: usize,
    bytes_of: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    let mut remaining = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += bytes_of(item);
            bytes <= max_bytes
        };
        let fitting = remaining.iter().take(max_items).take_while(fits).count();
        let (batch, others) = remaining.split_at(fitting.max(1).min(remaining.len()));
        remaining = others;
        (!batch.is_empty()).then_some(batch)
    })
}
