import Testing

@testable import Coordinator

@Suite struct ClusterSummaryTests {
    @Test(arguments: [
        (ClusterSummary(workers: 0, jobs: 0, paused: 0, shards: 0, committed: 0, takesJobs: true), "0 jobs, 0 workers"),
        (
            ClusterSummary(workers: 1, jobs: 1, paused: 0, shards: 24, committed: 3, takesJobs: true),
            "1 job, 3 of 24 shards committed, 1 worker"
        ),
        (
            ClusterSummary(workers: 5, jobs: 2, paused: 1, shards: 9, committed: 9, takesJobs: false),
            "takes no more jobs; 2 jobs, 9 of 9 shards committed, 1 paused, 5 workers"
        ),
    ])
    func whatACoordinatorDoesFitsALine(summary: ClusterSummary, line: String) { #expect("\(summary)" == line) }
}
