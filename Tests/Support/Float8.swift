package import Core

/// Float8 numbers by their definition, one at a time.
package enum Float8 {
    /// `f8E4M3` (no infinities, one NaN for each sign) or `f8E5M2` (as IEEE 754 would have it): sign, exponent, mantissa.
    package static func value(of code: UInt8, _ dtype: DType) -> Double {
        let mantissaBits = dtype == .f8E4M3 ? 3 : 2, bias = dtype == .f8E4M3 ? 7 : 15
        let exponent = Int(code & 0x7f) >> mantissaBits
        let mantissa = Double(Int(code) % (1 << mantissaBits)) / Double(1 << mantissaBits)
        let sign: Double = code < 0x80 ? 1 : -1
        if dtype == .f8E4M3 ? code & 0x7f == 0x7f : exponent == 31 {
            return dtype == .f8E5M2 && mantissa == 0 ? sign * .infinity : .nan
        }
        let unit = Double(sign: .plus, exponent: max(1, exponent) - bias, significand: 1)
        return sign * (exponent == 0 ? mantissa : 1 + mantissa) * unit
    }

    /// The codes of the numbers from 0 up, the largest last.
    package static func numbers(_ dtype: DType) -> ClosedRange<UInt8> { 0...(dtype == .f8E4M3 ? 0x7e : 0x7b) }

    /// What the number after the largest would be, if there were one.
    package static func limit(_ dtype: DType) -> Double { dtype == .f8E4M3 ? 480 : 65_536 }

    /// The code of the nearest number, of two equally near ones the even; NaN, or infinite, beyond the largest.
    package static func code(of value: Double, _ dtype: DType) -> UInt8 {
        let sign: UInt8 = value.sign == .minus ? 0x80 : 0
        guard !value.isNaN else { return 0x7f }
        let numbers = numbers(dtype), beyond = numbers.upperBound + 1
        let distances =
            numbers.map { (self.value(of: $0, dtype) - value.magnitude).magnitude } + [
                (limit(dtype) - value.magnitude).magnitude
            ]
        guard value.magnitude < limit(dtype), let least = distances.min() else { return beyond | sign }
        let nearest = distances.indices.filter { distances[$0] == least }
        return UInt8(nearest.first { nearest.count == 1 || $0 % 2 == 0 } ?? Int(beyond)) | sign
    }
}
