//! The calls that need `unsafe`.

/// Makes host names resolve by `/etc/hosts` and DNS alone, both of which are
/// inside libc. Other modules of nsswitch.conf would be loaded from the host
/// at run time, which a static binary must not do: they bring a second libc.
#[cfg(target_env = "gnu")]
pub(crate) fn resolve_hosts_without_modules() -> std::io::Result<()> {
    unsafe extern "C" {
        fn __nss_configure_lookup(
            database: *const libc::c_char,
            services: *const libc::c_char,
        ) -> libc::c_int;
    }
    // SAFETY: both are constant C strings; libc copies what it keeps of them.
    let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Other C libraries have no modules.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn resolve_hosts_without_modules() -> std::io::Result<()> {
    Ok(())
}
