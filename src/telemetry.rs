//! Logging to standard output, which Lambda collects.

use lambda_runtime::tracing::subscriber::filter::Targets;
use lambda_runtime::tracing::subscriber::prelude::*;
use lambda_runtime::tracing::subscriber::{fmt, registry};
use tracing::level_filters::LevelFilter;

use crate::config::Logging;

/// Installs the subscriber. Call it once.
pub fn init(logging: Logging) {
    // CloudWatch adds the time.
    let lines = fmt::layer().with_target(false).without_time();
    let subscriber = registry().with(targets(logging.level));
    if logging.json {
        subscriber.with(lines.json()).init();
    } else {
        subscriber.with(lines).init();
    }
}

/// Applies the level to own lines. Libraries log at most `INFO`: at `TRACE`, some print bodies and headers.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_log_at_most_info() {
        for (level, own, libraries) in [
            (LevelFilter::TRACE, Level::TRACE, Level::INFO),
            (LevelFilter::INFO, Level::INFO, Level::INFO),
            (LevelFilter::WARN, Level::WARN, Level::WARN),
        ] {
            let max_level = |target| {
                let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN];
                let targets = targets(level);
                levels
                    .into_iter()
                    .find(|level| targets.would_enable(target, level))
            };
            assert_eq!(max_level("falcon_posture_sync::sync::run"), Some(own));
            assert_eq!(max_level("hyper_util::client"), Some(libraries));
        }
    }
}
