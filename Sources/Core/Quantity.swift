/// Numbers formatted for people. Any number has a text: some come from files that others wrote.
package enum Quantity {
    /// `988.1 MB`, in decimal units, as disks and the Hugging Face Hub use them.
    package static func bytes(_ count: Int) -> String {
        let units = ["B", "kB", "MB", "GB", "TB", "PB"]
        var value = Double(count)
        var unit = 0
        while value >= 1000, unit < units.count - 1 {
            value /= 1000
            unit += 1
        }
        return unit == 0 ? "\(count) B" : "\(decimal(value, places: value < 100 ? 2 : 1)) \(units[unit])"
    }

    /// `one thread`, `8 threads`.
    package static func threads(_ count: Int) -> String { count == 1 ? "one thread" : "\(count) threads" }

    package static func rate(_ bytes: Int, _ seconds: Double) -> String {
        seconds > 0 ? "\(Self.bytes(Int(min(Double(bytes) / seconds, 0x1p62))))/s" : "–"
    }

    /// `0.42 s`, `3 min 12 s`, `2 h 5 min`.
    package static func seconds(_ value: Double) -> String {
        guard value.magnitude < 1e15 else { return "\(significant(value)) s" }
        switch value {
        case ..<60: return "\(decimal(value, places: value < 10 ? 2 : 1)) s"
        case ..<3600: return "\(Int(value) / 60) min \(Int(value) % 60) s"
        default: return "\(Int(value) / 3600) h \(Int(value) % 3600 / 60) min"
        }
    }

    package static func decimal(_ value: Double, places: Int) -> String {
        let scale = (0..<places).reduce(1.0) { scale, _ in scale * 10 }
        guard value.magnitude * scale < 0x1p62 else { return significant(value) }
        let scaled = Int((value.magnitude * scale).rounded())
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return "\(sign)\(scaled)" }
        let fraction = String(scaled % Int(scale))
        return "\(sign)\(scaled / Int(scale)).\(String(repeating: "0", count: places - fraction.count))\(fraction)"
    }

    /// So many significant digits: `0.00734`, `12.3`, `4.2e-09`.
    package static func significant(_ value: Double, digits: Int = 3) -> String {
        guard value.isFinite, value != 0 else { return value.isFinite ? "0" : "\(value)" }
        var exponent = 0, scaled = value.magnitude
        while scaled >= 10 {
            scaled /= 10
            exponent += 1
        }
        while scaled < 1 {
            scaled *= 10
            exponent -= 1
        }
        if (-5..<15).contains(exponent) { return decimal(value, places: max(0, digits - 1 - exponent)) }
        var mantissa = decimal(scaled, places: digits - 1)
        if mantissa.hasPrefix("10") {
            mantissa = decimal(1, places: digits - 1)
            exponent += 1
        }
        let size = "\(exponent.magnitude)"
        return "\(value < 0 ? "-" : "")\(mantissa)e\(exponent < 0 ? "-" : "+")\(size.count < 2 ? "0" : "")\(size)"
    }
}
