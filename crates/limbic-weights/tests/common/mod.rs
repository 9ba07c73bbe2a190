/// The most memory that this process has had resident, in bytes.
pub(crate) fn memory_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes = kilobytes.and_then(|number| number.trim().parse::<usize>().ok());
    kilobytes.expect("a number of kilobytes") << 10
}
