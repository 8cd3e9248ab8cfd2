//! The same tests against every kind of server that is supported.

/// Makes each of the named functions a test against each kind of server, in a module named for that: `postgres_14`
/// to `postgres_18`. The functions take the [`ServerOptions`](crate::ServerOptions) to start from.
///
/// A further kind, such as another transport, is a further line here.
#[macro_export]
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => {
        $crate::on_server!(postgres_14, $crate::ServerOptions::default().version(14), $($test),+);
        $crate::on_server!(postgres_15, $crate::ServerOptions::default().version(15), $($test),+);
        $crate::on_server!(postgres_16, $crate::ServerOptions::default().version(16), $($test),+);
        $crate::on_server!(postgres_17, $crate::ServerOptions::default().version(17), $($test),+);
        $crate::on_server!(postgres_18, $crate::ServerOptions::default().version(18), $($test),+);
    };
}

/// Makes each of the named functions a test against one kind of server, in the module `$kind`.
#[macro_export]
macro_rules! on_server {
    ($kind:ident, $options:expr, $($test:ident),+) => {
        mod $kind {
            $(
                #[test]
                fn $test() -> anyhow::Result<()> {
                    super::$test($options)
                }
            )+
        }
    };
}
