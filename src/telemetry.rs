//! Logging to standard output, where Lambda collects it.

use lambda_runtime::tracing::subscriber::filter::Targets;
use lambda_runtime::tracing::subscriber::prelude::*;
use lambda_runtime::tracing::subscriber::{fmt, registry};
use tracing::level_filters::LevelFilter;

use crate::config::Logging;

/// This crate's own lines.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Begins to log, once.
pub fn init(logging: Logging) {
    // CloudWatch has the time.
    let lines = fmt::layer().with_target(false).without_time();
    let subscriber = registry().with(targets(logging.level));
    if logging.json {
        subscriber.with(lines.json()).init();
    } else {
        subscriber.with(lines).init();
    }
}

/// The level is for our own lines. Libraries say no more than `INFO`: at `TRACE`, some print bodies and headers.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target(OWN, level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_say_more_than_info() {
        for (level, own, libraries) in [
            (LevelFilter::TRACE, Level::TRACE, Level::INFO),
            (LevelFilter::INFO, Level::INFO, Level::INFO),
            (LevelFilter::WARN, Level::WARN, Level::WARN),
        ] {
            let most = |target| {
                let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN];
                let targets = targets(level);
                levels
                    .into_iter()
                    .find(|level| targets.would_enable(target, level))
            };
            assert_eq!(most("falcon_posture_sync::sync::run"), Some(own));
            assert_eq!(most("hyper_util::client"), Some(libraries));
        }
    }
}
