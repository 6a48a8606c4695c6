# Prints what a phone is and how it is doing, in sections that start with `@edgekit NAME`. Argument: the folder of edgekit.
section() {
    echo "@edgekit $1"
}

section uname
uname -m
uname -r
section properties
for name in ro.product.manufacturer ro.product.model ro.soc.manufacturer ro.soc.model ro.build.version.release \
    ro.build.version.sdk ro.product.cpu.abilist; do
    echo "$name=$(getprop "$name")"
done
section cpuinfo
cat /proc/cpuinfo
section meminfo
grep -e MemTotal -e MemAvailable /proc/meminfo
section load
cat /proc/loadavg
section cpus
(cd /sys/devices/system/cpu && grep -sH . cpu[0-9]*/cpu_capacity cpu[0-9]*/cpufreq/cpuinfo_max_freq \
    cpu[0-9]*/cpufreq/scaling_cur_freq cpu[0-9]*/cpufreq/scaling_max_freq cpu[0-9]*/cpufreq/scaling_governor)
section thermal_zones
(cd /sys/class/thermal && grep -sH . thermal_zone*/type thermal_zone*/temp)
section thermalservice
dumpsys thermalservice
section battery
dumpsys battery
section saver
settings get global low_power
section disk
base=$1
while [ ! -d "$base" ]; do base=${base%/*}; done
stat -f -c '%a %S' "$base"
section end
