"""What the sensors of boards and processors look like in Linux's files, one tree for each way they have been shown."""

from __future__ import annotations

from boards import DESKTOP, ORIN_NANO, THOR, XAVIER


def ina3221(place: str, number: int, *channels: tuple[str, int, int] | None) -> dict[str, str]:
    """A monitor as hwmon shows it: label, mV and mA of each channel; None for one that is not connected."""
    folder = f"sys/bus/i2c/devices/{place}/hwmon/hwmon{number}"
    files = {f"sys/bus/i2c/devices/{place}/name": "ina3221\n", f"{folder}/name": "ina3221\n"}
    for index, channel in enumerate(channels, start=1):
        label, millivolts, milliamperes = channel or ("NC", 0, 0)
        files |= {
            f"{folder}/in{index}_label": f"{label}\n",
            f"{folder}/in{index}_input": f"{millivolts}\n",
            f"{folder}/curr{index}_input": f"{milliamperes}\n",
            f"{folder}/in{index}_enable": "1\n",
            f"{folder}/in{index + 3}_input": "1234\n",  # voltages over the shunts
        }
    sums = {f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/in7_input": "8080\n"}
    return {**files, **sums, f"{folder}/curr4_input": "360\n"}


def zones(*degrees: tuple[str, int]) -> dict[str, str]:
    """Thermal zones with their thousandths of a degree."""
    files = {}
    for index, (name, thousandths) in enumerate(degrees):
        folder = f"sys/class/thermal/thermal_zone{index}"
        files |= {f"{folder}/type": f"{name}\n", f"{folder}/temp": f"{thousandths}\n"}
    return files


def over_current(number: int, *counts: int) -> dict[str, str]:
    """The over-current counters of JetPack 5 and newer."""
    folder = f"sys/class/hwmon/hwmon{number}"
    files = {f"{folder}/name": "soctherm_oc\n"}
    for index, count in enumerate(counts, start=1):
        files |= {f"{folder}/oc{index}_event_cnt": f"{count}\n", f"{folder}/oc{index}_throt_en": "1\n"}
    return files


ORIN_NANO_6 = {
    **ORIN_NANO,
    **ina3221("1-0040", 1, ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 4976, 400), ("VDD_SOC", 4976, 304)),
    **zones(("cpu-thermal", 51187), ("gpu-thermal", 50218), ("cv0-thermal", -256000), ("tj-thermal", 51187)),
    **over_current(3, 0, 2, 37),
    "sys/class/devfreq/17000000.gpu/device/load": "425\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600\n",
}
"""JetPack 6: one monitor that measures the module's input."""

AGX_ORIN_5 = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n",
    **ina3221("1-0040", 3, ("VDD_GPU_SOC", 18792, 140), ("VDD_CPU_CV", 18784, 20), ("VIN_SYS_5V0", 4968, 980)),
    **ina3221("1-0041", 4, None, ("VDDQ_VDD2_1V8AO", 4968, 80), None),
    "sys/class/devfreq/17000000.ga10b/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.ga10b/max_freq": "1300500000\n",
}
"""JetPack 5: two monitors, no rail for the whole, and one rail that feeds another."""

XAVIER_5 = {
    **XAVIER,
    **ina3221("1-0040", 3, ("GPU", 19000, 100), ("CPU", 19000, 60), ("SOC", 19000, 110)),
    **ina3221("1-0041", 4, ("CV", 19000, 0), ("VDDRQ", 19000, 20), ("SYS5V", 5000, 400)),
}
"""JetPack 5: six rails side by side."""


def iio(place: str, number: int, *channels: tuple[str, int, int]) -> dict[str, str]:
    """A monitor as JetPack 4 shows it: label, mV and mA."""
    folder = f"sys/bus/i2c/devices/{place}/iio:device{number}"
    files = {f"sys/bus/i2c/devices/{place}/name": "ina3221x\n"}
    for index, (label, millivolts, milliamperes) in enumerate(channels):
        files |= {
            f"{folder}/rail_name_{index}": f"{label}\n",
            f"{folder}/in_voltage{index}_input": f"{millivolts}\n",
            f"{folder}/in_current{index}_input": f"{milliamperes}\n",
            f"{folder}/in_power{index}_input": f"{millivolts * milliamperes // 1000}\n",
        }
    return files


NANO_4 = {
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
    **iio("6-0040", 0, ("POM_5V_IN", 5000, 600), ("POM_5V_GPU", 5000, 100), ("POM_5V_CPU", 5000, 120)),
    "sys/devices/virtual/thermal/thermal_zone0/type": "AO-therm\n",
    "sys/devices/virtual/thermal/thermal_zone0/temp": "44500\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "76800000\n",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
}
"""JetPack 4, for the form of its files; edgeco's Python does not run on it as it comes."""

TX2_4 = {
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t186ref, EABI: aarch64\n",
    **iio("0-0040", 0, ("VDD_SYS_GPU", 19000, 10), ("VDD_SYS_SOC", 19000, 40), ("VDD_4V0_WIFI", 4000, 5)),
    **iio("0-0041", 1, ("VDD_IN", 19000, 200), ("VDD_SYS_CPU", 19000, 15), ("VDD_SYS_DDR", 19000, 60)),
    **iio("0-0042", 2, ("VDD_MUX", 19000, 350), ("VDD_5V0_IO_SYS", 5000, 300), ("VDD_3V3_SYS", 3300, 20)),
}
"""JetPack 4 with monitors on the carrier too."""

THOR_7 = {
    **THOR,
    **ina3221("2-0040", 5, ("VDD_GPU", 12040, 640), ("VDD_CPU_SOC_MSS", 12040, 960), ("VIN_SYS_5V0", 5088, 1740)),
    "sys/bus/i2c/devices/2-0044/name": "ina238\n",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/in0_input": "12\n",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/in1_input": "20100\n",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/curr1_input": "1990\n",
    "sys/bus/i2c/devices/2-0044/hwmon/hwmon6/power1_input": "40000000\n",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/gpu-nvd-0/cur_freq": "1692000000\n",
}
"""JetPack 7: the carrier's input beside the module's rails."""


def rapl(package: int, energy: int, span: int = 262_143_328_850, dram: int | None = None) -> dict[str, str]:
    """The energy counters of one processor, in microjoules."""
    folder = f"sys/class/powercap/intel-rapl:{package}"
    inside = f"sys/class/powercap/intel-rapl:{package}:0"
    files = {
        f"{folder}/name": f"package-{package}\n",
        f"{folder}/energy_uj": f"{energy}\n",
        f"{folder}/max_energy_range_uj": f"{span}\n",
        f"{inside}/name": "core\n",
        f"{inside}/energy_uj": f"{energy // 2}\n",
        f"{inside}/max_energy_range_uj": f"{span}\n",
    }
    if dram is not None:
        memory = f"sys/class/powercap/intel-rapl:{package}:1"
        files |= {f"{memory}/name": "dram\n", f"{memory}/energy_uj": f"{dram}\n"}
    return files


WORKSTATION = {
    **DESKTOP,
    **rapl(0, 5_000_000),
    **zones(("acpitz", 27800), ("acpitz", 29800), ("x86_pkg_temp", 61000)),
    "sys/class/powercap/intel-rapl:1/name": "psys\n",
    "sys/class/powercap/intel-rapl:1/energy_uj": "99000000\n",
    "sys/class/powercap/intel-rapl-mmio:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "5000000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4\n",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "0\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "4\n",
    "sys/devices/system/cpu/cpu1/topology/physical_package_id": "0\n",
}
"""A processor with counters, among them ones that count others again."""
