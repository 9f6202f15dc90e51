import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Creates the ACLs of standard input, all in one request: Kafka's own tool takes a JVM for each.
 * A line is: permission principal operation resource-type pattern-type name.
 */
public class Acls {
    public static void main(String[] args) throws Exception {
        List<AclBinding> acls = new ArrayList<>();
        for (String line : new String(System.in.readAllBytes(), StandardCharsets.UTF_8).split("\n")) {
            String[] words = line.split(" ");
            ResourcePattern pattern = new ResourcePattern(
                    ResourceType.fromString(words[3]), words[5], PatternType.valueOf(words[4].toUpperCase()));
            AccessControlEntry entry = new AccessControlEntry(
                    words[1], "*", AclOperation.fromString(words[2]), AclPermissionType.fromString(words[0]));
            if (pattern.isUnknown() || entry.isUnknown()) {
                throw new IllegalArgumentException(line);
            }
            acls.add(new AclBinding(pattern, entry));
        }
        try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]))) {
            admin.createAcls(acls).all().get();
        }
    }
}
