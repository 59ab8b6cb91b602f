//! Logging to standard output, where Lambda collects it.

use lambda_runtime::tracing::subscriber::EnvFilter;
use tracing::level_filters::LevelFilter;

use crate::config::Logging;

/// This crate's own lines.
const OWN: &str = env!("CARGO_CRATE_NAME");

/// Begins to log, once.
pub fn init(logging: Logging) {
    let subscriber = lambda_runtime::tracing::subscriber::fmt()
        .with_target(false)
        // CloudWatch has the time.
        .without_time()
        .with_env_filter(EnvFilter::new(directives(logging.level)));
    if logging.json {
        subscriber.json().init();
    } else {
        subscriber.init();
    }
}

/// The level is for our own lines. Libraries say no more than `INFO`: at `TRACE`, some print bodies and headers.
fn directives(level: LevelFilter) -> String {
    let libraries = level.min(LevelFilter::INFO);
    format!("{libraries},{OWN}={level}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_say_more_than_info() {
        assert_eq!(
            directives(LevelFilter::TRACE),
            "info,falcon_posture_sync=trace"
        );
        assert_eq!(
            directives(LevelFilter::WARN),
            "warn,falcon_posture_sync=warn"
        );
    }
}
