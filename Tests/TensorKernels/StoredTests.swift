import Core
import TensorKernels
import TestSupport
import Testing

/// The fused loops over stored elements compute the same bits as the single scales, on every level, for every type.
@Suite(.serialized) struct StoredTests {
    private static let types: [DType] = [.f32, .bf16, .f16, .f64, .f8E4M3, .f8E5M2]
    private static let lengths = [0, 1, 31, 64, 65, 1000]

    private func values(_ count: Int, seed: UInt64) -> [Float] {
        var random = SplitMix(seed: seed)
        return (0..<count).map { _ in Float.random(in: -1...1, using: &random) }
    }

    /// Bytes of random numbers in a type, one byte off any alignment.
    private func stored(_ count: Int, _ dtype: DType, seed: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 1 + count * dtype.bitWidth / 8)
        bytes.withUnsafeMutableBytes { bytes in
            if let first = bytes.baseAddress {
                Kernels.portable.narrow(values(count, seed: seed), to: dtype, first + 1, count: count)
            }
        }
        return bytes
    }

    private func widened(_ bytes: [UInt8], _ dtype: DType, count: Int) -> [Float] {
        var values = [Float](repeating: 0, count: count)
        bytes.withUnsafeBytes { bytes in
            if let first = bytes.baseAddress { Kernels.portable.widen(dtype, first + 1, &values, count: count) }
        }
        return values
    }

    private func vector<Result>(_ bytes: [UInt8], _ dtype: DType, _ body: (StoredVector) throws -> Result) rethrows -> Result? {
        try bytes.withUnsafeBytes { bytes in try bytes.baseAddress.map { try body(StoredVector($0 + 1, dtype)) } }
    }

    @Test(arguments: types, Kernels.available)
    func differencesAreWidenedAndSubtracted(dtype: DType, kernels: Kernels) {
        for other in Self.types {
            for count in Self.lengths {
                let x = stored(count, dtype, seed: 1), y = stored(count, other, seed: 2)
                var expected = widened(x, dtype, count: count), found = [Float](repeating: .nan, count: count)
                Kernels.portable.subtract(expected, widened(y, other, count: count), into: &expected, count: count)
                _ = vector(x, dtype) { x in vector(y, other) { y in kernels.difference(x, y, into: &found, count: count) } }
                #expect(found.map(\.bitPattern) == expected.map(\.bitPattern), "\(dtype) - \(other), \(count), \(kernels)")
            }
        }
    }

    private func withStored<Result>(
        _ models: [(bytes: [UInt8], dtype: DType)], _ vectors: [StoredVector] = [], _ body: ([StoredVector]) throws -> Result
    ) rethrows -> Result? {
        guard let (bytes, dtype) = models.first else { return try body(vectors) }
        return try vector(bytes, dtype) { try withStored(Array(models.dropFirst()), vectors + [$0], body) } ?? nil
    }

    /// Weights of zero show that the sign of a zero stays.
    @Test(arguments: Kernels.available, [1, 3, 40])
    func weightedSumsAreTheirSteps(kernels: Kernels, models: Int) {
        let weights = (0..<models).map { Float($0 % 5) / 4 }
        for count in Self.lengths {
            let family = family(models, count: count)
            let values = family.models.map { widened($0.bytes, $0.dtype, count: count) }
            for divisor in [Float(1), 3] {
                let expected = (0..<count).map { element in
                    let terms = zip(weights, values).map { $0 * $1[element] }
                    return terms.dropFirst().reduce(terms[0], +) / divisor
                }
                var found = [Float](repeating: .nan, count: count)
                _ = withStored(family.models) { x in
                    kernels.weightedSum(x, weights: weights, divisor: divisor, into: &found, count: count)
                }
                #expect(bits(found) == bits(expected), "\(models) models, \(count) elements, \(divisor), \(kernels)")
            }
        }
    }

    /// Models of all types, some values of which are NaN or infinite; the base is in bfloat16.
    private struct Family {
        var models: [(bytes: [UInt8], dtype: DType)]
        let base: [UInt8]
        let flags: [[UInt8]]
        let bands: [MagnitudeBand]
        let count: Int
    }

    private func family(_ models: Int, count: Int) -> Family {
        var random = SplitMix(seed: 20)
        let some = [MagnitudeBand.all, .none, MagnitudeBand(from: Float(0.4).bitPattern, to: Float(1.1).bitPattern), .all]
        var family = Family(
            models: (0..<models).map { index in
                let dtype = Self.types[index % Self.types.count]
                return (stored(count, dtype, seed: UInt64(index)), dtype)
            }, base: stored(count, .bf16, seed: 99),
            flags: (0..<models).map { _ in (0..<count).map { _ in UInt8.random(in: 0...1, using: &random) } },
            bands: (0..<models).map { some[$0 % some.count] }, count: count)
        guard models > 0 else { return family }
        family.models[0].bytes.withUnsafeMutableBytes { bytes in
            for (index, value) in [Float.nan, .infinity].enumerated() where index < count {
                withUnsafeBytes(of: value) { raw in
                    for (byte, part) in raw.enumerated() { bytes[1 + 4 * index + byte] = part }
                }
            }
        }
        return family
    }

    /// The task vectors, and what stays of them, scale by scale. Every other model is flagged.
    private func entries(_ family: Family) -> (all: [[Float]], kept: [[Float]]) {
        let base = widened(family.base, .bf16, count: family.count)
        let all = family.models.map { model in
            zip(widened(model.bytes, model.dtype, count: family.count), base).map { $0 - $1 }
        }
        let kept = all.enumerated().map { index, entries in
            entries.enumerated().map { element, value in
                let pattern = value.magnitude.bitPattern, band = family.bands[index]
                let inBand = pattern >= band.from && pattern <= band.to ? value : 0
                return index % 2 == 0 || family.flags[index][element] == 1 ? inBand : inBand * 0
            }
        }
        return (all, kept)
    }

    private func withVectors<Result>(
        _ family: Family, _ body: ([Kernels.TaskVector], StoredVector) throws -> Result
    ) rethrows -> Result? {
        func next(_ vectors: [Kernels.TaskVector], _ base: StoredVector) throws -> Result? {
            let index = vectors.count
            guard index < family.models.count else { return try body(vectors, base) }
            return try family.flags[index].withUnsafeBufferPointer { flags in
                try vector(family.models[index].bytes, family.models[index].dtype) { x in
                    try next(
                        vectors + [Kernels.TaskVector(x, base: base, flags: index % 2 == 0 ? nil : flags.baseAddress)], base)
                }
            } ?? nil
        }
        return try vector(family.base, .bf16) { base in try next([], base) } ?? nil
    }

    private func bits(_ values: [Float]) -> [UInt32] { values.map { $0.isNaN ? 0x7fc0_0000 : $0.bitPattern } }

    /// Against the definition, in which every scale is rounded; of three models and of more than anybody will merge.
    @Test(arguments: Kernels.available, [0, 3, 40])
    func mergesOfTaskVectorsAreTheirSteps(kernels: Kernels, models: Int) {
        let family = family(models, count: 1000), kept = entries(family).kept
        let weights = (0..<models).map { Float($0 % 5) / 4 - 0.3 }, factors = (0..<models).map { 1 + Float($0 % 3) / 7 }
        let base = widened(family.base, .bf16, count: family.count)
        for isConsensus in [true, false] {
            for (normalize, lambda, divisor) in [(true, Float(1), Float(1)), (false, 0.7, 1), (true, 1.5, 2.5)] {
                let expected = (0..<family.count).map { element in
                    let entries = (0..<models).map { kept[$0][element] * factors[$0] * weights[$0] }
                    let sum = entries.reduce(0, +)
                    guard isConsensus else { return lambda * (sum / divisor) + base[element] }
                    var merged: Float = 0, weight: Float = 0
                    for (entry, own) in zip(entries, weights) {
                        let agrees: Float = sum >= 0 ? (entry > 0 ? 1 : 0) : entry < 0 ? 1 : 0
                        merged += entry * agrees
                        weight += own * agrees
                    }
                    return lambda * (normalize && weight != 0 ? merged / weight : merged) + base[element]
                }
                var found = [Float](repeating: .nan, count: family.count)
                _ = withVectors(family) { vectors, base in
                    let merge = Kernels.TaskVectorMerge(
                        weights: weights, factors: factors, isConsensus: isConsensus, normalize: normalize, divisor: divisor,
                        lambda: lambda)
                    // In two ranges that begin and end anywhere.
                    for range in [0..<333, 333..<family.count] {
                        merge.apply(range, of: vectors, base: base, bands: family.bands, into: &found, kernels: kernels)
                    }
                }
                #expect(bits(found) == bits(expected), "\(isConsensus), \(normalize), \(lambda), \(divisor)")
            }
        }
    }

    @Test(arguments: Kernels.available)
    func consensusIsTIES(kernels: Kernels) {
        // Columns: all agree; the minority loses; a tie sums to zero and counts as plus; a zero entry takes no part; nothing at
        // all.
        let rows: [[Float]] = [[1, 3, 2, 0, 0], [2, -1, -2, 4, 0], [3, -0.5, 0, -0.5, 0]]
        let zeros = [Float](repeating: 0, count: 5)
        func merged(normalize: Bool) -> [Float] {
            var found = [Float](repeating: .nan, count: 5)
            rows[0].withUnsafeBytes { a in
                rows[1].withUnsafeBytes { b in
                    rows[2].withUnsafeBytes { c in
                        zeros.withUnsafeBytes { zeros in
                            guard let base = zeros.baseAddress.map({ StoredVector($0, .f32) }) else { return }
                            let vectors = [a, b, c].compactMap(\.baseAddress).map { row in
                                Kernels.TaskVector(StoredVector(row, .f32), base: base, flags: nil)
                            }
                            Kernels.TaskVectorMerge(
                                weights: [1, 1, 2], factors: [1, 1, 1], isConsensus: true, normalize: normalize, divisor: 1,
                                lambda: 1
                            ).apply(
                                0..<5, of: vectors, base: base, bands: [.all, .all, .all], into: &found, kernels: kernels)
                        }
                    }
                }
            }
            return found
        }
        #expect(merged(normalize: false) == [9, 3, 2, 4, 0])
        #expect(merged(normalize: true) == [2.25, 3, 2, 4, 0])
    }

    /// In whatever pieces they are added up: the lane of an element is its index modulo eight.
    @Test(arguments: Kernels.available, [[0], [0, 8, 16], [0, 1, 2, 70, 333, 801]])
    func magnitudesAreAddedInLanes(kernels: Kernels, starts: [Int]) {
        let family = family(6, count: 1000), (all, kept) = entries(family)
        func sum(_ values: [Float]) -> Double {
            var s = [Double](repeating: 0, count: 8)
            for (index, value) in values.enumerated() { s[index % 8] += Double(value.magnitude) }
            return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
        }
        for index in family.models.indices {
            var sums = Kernels.MagnitudeSums()
            _ = withVectors(family) { vectors, _ in
                for (start, end) in zip(starts, starts.dropFirst() + [family.count]) {
                    vectors[index].addMagnitudes(start..<end, family.bands[index], to: &sums, kernels: kernels)
                }
            }
            #expect(sums.all.bitPattern == sum(all[index]).bitPattern || sum(all[index]).isNaN && sums.all.isNaN)
            #expect(sums.kept.bitPattern == sum(kept[index]).bitPattern || sum(kept[index]).isNaN && sums.kept.isNaN)
        }
    }
}
