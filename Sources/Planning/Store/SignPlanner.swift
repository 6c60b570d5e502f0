import Core
import TaskVectors
import Work

/// Plans a store of signs with scales of rows or of columns (arXiv 2512.19720): for each tensor of each task, the axis that errs
/// less; columns if both err the same. The authors choose by calibration data.
struct SignPlanner: Sendable {
    let planner: StorePlanner

    private static let axes: [StorageFormat] = [.signs(.column), .signs(.row)]

    func plan() throws -> Plan {
        guard let statistics = planner.statistics.first else {
            return try planner.analysisStage("axis_sign") {
                $0.isEncoded ? .measureGrids(GridMeasurement(shared: [.zero], formats: Self.axes)) : nil
            }
        }
        return try planner.write { tensor in
            guard tensor.isEncoded else { return planner.raw(tensor) }
            guard case .encoding(.grids(let tasks)) = statistics[ExactText(tensor.name)], tasks.count == planner.tasks.count
            else {
                throw TesseraError(.internal, "no statistics for this tensor", tensor: tensor.name)
            }
            return .quantize(
                Quantizer(
                    tasks: tasks.map { found in
                        let errors = found.errors.joined()
                        return errors.first == errors.min() ? Self.axes[0] : Self.axes[1]
                    }))
        }
    }
}
